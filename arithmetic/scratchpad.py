"""Write out the steps of each operation as token columns with their dependencies.

A model fails where one token depends on many others. So every operation is spelled out until a
token depends on few earlier ones: carries are written before their digits, products as tens and
ones, quotient digits found by trying 8, 4, 2 and 1 times the divisor. Each token's dependencies are
recorded, since training data has to cover their combinations evenly (`stages.sampling`).

Numbers are written least significant digit first (Lee et al. 2023, "Teaching Arithmetic to Small
Transformers"): a digit then depends only on what precedes it.
"""

from collections.abc import Sequence

import numpy as np

from arithmetic.tokenizer import IDS

Column = np.ndarray  # [N]: one token of each sequence
PLUS, MINUS, OVERFLOW = IDS["+"], IDS["-"], IDS[">"]


class TokenColumns:
    """Hold the tokens of N sequences, column by column, in the order they are written.

    Attributes:
        columns: the values of each token, [N] each.
        dependencies: for each token, the indices of the earlier tokens it is a function of.
        names: a name for each token, used by `arithmetic.explain`.
        answer_start: index of the answer's first token.
    """

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.dependencies: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self.answer_start = 0

    def append(self, values: Column, depends_on: Sequence[int] = (), name: str = "") -> int:
        """Append one token of every sequence and return its index."""
        self.columns.append(np.asarray(values, np.int32))
        self.dependencies.append(tuple(depends_on))
        self.names.append(name)
        return len(self.columns) - 1

    def append_answer(self, digits: Sequence[int]) -> None:
        """Append copies of earlier tokens as digits of the answer."""
        for i, digit in enumerate(digits):
            self.append(self[digit], [digit], f"answer {i}")

    def __getitem__(self, index: int) -> Column:
        return self.columns[index]


def add_subtract(columns: TokenColumns, operator: int, a: list[int], b: list[int]) -> None:
    """Write a sum or a difference: `951+11=`, `020609`, `00`, `+2690`.

    Each carry (or borrow) comes before its digit. A negative difference comes out modulo 10^n and
    has to be complemented in the answer. Whether all digits so far are zero is the complement's
    carry, so it is written as a flag a digit; otherwise a token would depend on all of them.
    """
    minus = columns[operator] == MINUS
    carry: list[int] = []
    digits = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        inputs = [operator, x, y, *carry]
        carry_in = columns[carry[0]] if carry else 0
        total = np.where(
            minus, columns[x] - columns[y] - carry_in, columns[x] + columns[y] + carry_in
        )
        carry_out = columns.append((total < 0) | (total > 9), inputs, f"carry {i}")
        digits.append(columns.append(total % 10, inputs, f"digit {i}"))
        carry = [carry_out]
    flags: list[int] = []
    for i, digit in enumerate(digits[:-1]):
        zero = columns[digit] == 0
        if flags:
            zero = zero & (columns[flags[-1]] == 1)
        flags.append(columns.append(zero, [digit, *flags[-1:]], f"zero so far {i}"))

    columns.answer_start = len(columns.columns)
    negative = minus & (columns[carry[0]] == 1)
    columns.append(np.where(negative, MINUS, PLUS), [operator, carry[0]], "sign")
    for i, digit in enumerate(digits):
        flag = flags[i - 1 : i]
        complement = (9 - columns[digit] + (columns[flag[0]] if flag else 1)) % 10
        inputs = [operator, carry[0], digit, *flag]
        columns.append(np.where(negative, complement, columns[digit]), inputs, f"answer {i}")
    columns.append(np.where(minus, 0, columns[carry[0]]), [operator, carry[0]], "answer carry")


def multiply(columns: TokenColumns, operator: int, a: list[int], b: list[int]) -> None:
    """Write a long multiplication: a row for each digit of b, then the running sum of the rows.

    Each product of two digits is written as tens and ones, with the carry in it.
    """
    n = len(a)
    rows = []
    for j, y in enumerate(b):
        tens: list[int] = []
        row = []
        for i, x in enumerate(a):
            inputs = [x, y, *tens]
            product = columns[x] * columns[y] + (columns[tens[0]] if tens else 0)
            tens_out = columns.append(product // 10, inputs, f"row {j} tens {i}")
            row.append(columns.append(product % 10, inputs, f"row {j} ones {i}"))
            tens = [tens_out]
        rows.append(row + tens)
    total = rows[0]
    for j in range(1, n):
        result, carry = total[:j], list[int]()
        for i, digit in enumerate(rows[j]):
            inputs = [*total[i + j : i + j + 1], digit, *carry]
            value = np.sum([columns[index] for index in inputs], axis=0)
            if i < n:  # the last digit has no carry: the product has 2n digits
                carry_out = columns.append(value // 10, inputs, f"sum {j} carry {i + j}")
            result.append(columns.append(value % 10, inputs, f"sum {j} digit {i + j}"))
            carry = [carry_out]
        total = result
    columns.answer_start = len(columns.columns)
    columns.append_answer(total)


def divide(columns: TokenColumns, operator: int, a: list[int], b: list[int]) -> None:
    """Write a long division: multiples of the divisor, then trials for each digit of a.

    First 2, 4 and 8 times the divisor (`>` where a multiple exceeds n digits). Then the remainder
    with the next digit brought down is tried against 8, 4, 2 and 1 times the divisor. A trial is
    its borrows (a last borrow of 1 rejects it) and what remains.
    """
    n = len(a)
    multiples = {1: b}
    for factor in (2, 4, 8):
        multiples[factor] = _double(columns, multiples[factor // 2], f"{factor}b")

    # The first digit: only a one-digit divisor fits into it, found by one look-up.
    inputs = [a[-1], *b]
    one_digit = np.all([columns[y] == 0 for y in b[1:]], axis=0) if n > 1 else True
    divisor = np.where(one_digit, np.maximum(columns[b[0]], 1), 10)
    first = columns.append(columns[a[-1]] // divisor, inputs, f"quotient {n - 1}")
    remainder = [columns.append(columns[a[-1]] % divisor, inputs, f"remainder {n - 1}")]
    rejections: dict[int, list[int]] = {}
    for place in range(n - 2, -1, -1):
        remainder = [a[place], *remainder]
        rejections[place] = []
        for factor in (8, 4, 2, 1):
            name = f"place {place} try {factor}"
            rejected, remainder = _try(columns, remainder, multiples[factor], name)
            rejections[place].append(rejected)

    columns.answer_start = len(columns.columns)
    for place in range(n - 1):
        accepted = [1 - columns[rejected] for rejected in rejections[place]]
        quotient = np.einsum("f,fn->n", (8, 4, 2, 1), np.stack(accepted))
        columns.append(quotient, rejections[place], f"answer {place}")
    columns.append_answer([first])
    columns.append_answer(remainder)


def _double(columns: TokenColumns, number: list[int], name: str) -> list[int]:
    """Append twice a number, with OVERFLOW as its last digit where it exceeds n digits."""
    digits = []
    for i, digit in enumerate(number):
        value = 2 * np.where(columns[digit] == OVERFLOW, 0, columns[digit])
        value = value + (columns[number[i - 1]] >= 5 if i else 0)
        if i == len(number) - 1:
            value = np.where((value > 9) | (columns[digit] == OVERFLOW), OVERFLOW, value)
        else:
            value = value % 10
        inputs = [digit, *number[max(i - 1, 0) : i]]
        digits.append(columns.append(value, inputs, f"{name} {i}"))
    return digits


def _try(
    columns: TokenColumns, remainder: list[int], multiple: list[int], name: str
) -> tuple[int, list[int]]:
    """Append one trial: return the index of its last borrow (1: rejected) and what remains."""
    size = len(remainder)
    higher = multiple[size:]
    borrow: list[int] = []
    differences, inputs = [], []
    for i in range(size):
        needs = [remainder[i], multiple[i], *borrow]
        subtrahend = np.where(columns[multiple[i]] == OVERFLOW, 20, columns[multiple[i]])
        difference = columns[remainder[i]] - subtrahend - (columns[borrow[0]] if borrow else 0)
        short = difference < 0
        differences.append(difference)
        inputs.append(needs)
        if i == size - 1:
            for digit in higher:  # digits of the multiple that the remainder has no place for
                short = short | (columns[digit] != 0)
            needs = [*needs, *higher]
        borrow = [columns.append(short, needs, f"{name} borrow {i}")]
    rejected = borrow[0]
    left = [
        columns.append(
            np.where(columns[rejected] == 1, columns[remainder[i]], differences[i] % 10),
            [*inputs[i], rejected],
            f"{name} digit {i}",
        )
        for i in range(size)
    ]
    return rejected, left
