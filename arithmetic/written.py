"""Written arithmetic: the steps a pupil puts on paper, as columns of tokens.

A model fails where one token needs many look-ups at once. So every operation is spelled out until
a token depends on few earlier ones: carries are written before their digits, products as
tens and ones, quotient digits found by trying 8, 4, 2 and 1 times the divisor. The `Sheet`
remembers what each token looks at, which is also what training has to show evenly
(`stages.sampling`).

Every number is least significant digit first (Lee et al. 2023, "Teaching Arithmetic to Small
Transformers"): each digit then depends only on what stands before it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from arithmetic.tokenizer import IDS

Column = np.ndarray  # [N], one token of every sequence
PLUS, MINUS, MORE = IDS["+"], IDS["-"], IDS[">"]


class Sheet:
    """Token columns in the order they are written.

    Attributes:
        columns: values of each token, [N] each.
        looks_at: for each token, the indices of the earlier ones it is a function of.
        names: for each token, what it is, for reports.
    """

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.looks_at: list[tuple[int, ...]] = []
        self.names: list[str] = []

    def put(self, values: Column, looks_at: Sequence[int] = (), name: str = "") -> int:
        """Write one token of every sequence; returns its index."""
        self.columns.append(np.asarray(values, np.int32))
        self.looks_at.append(tuple(looks_at))
        self.names.append(name)
        return len(self.columns) - 1

    def __getitem__(self, index: int) -> Column:
        return self.columns[index]

    def sum(self, indices: Sequence[int]) -> Column:
        """Digit by digit sum of some columns."""
        total = self.columns[indices[0]].copy()
        for index in indices[1:]:
            total += self.columns[index]
        return total


def add(sheet: Sheet, a: list[int], b: list[int]) -> Callable[[], None]:
    """Carry before digit, then the sum again, complete: `951+11=`, `02 06 09`, `2690`."""
    carry: list[int] = []
    digits = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        needs = [x, y, *carry]
        total = sheet.sum(needs)
        carry_out = sheet.put(total // 10, needs, f"carry {i}")
        digits.append(sheet.put(total % 10, needs, f"digit {i}"))
        carry = [carry_out]
    return lambda: _copy(sheet, [*digits, *carry])


def subtract(sheet: Sheet, a: list[int], b: list[int]) -> Callable[[], None]:
    """Borrow before digit; then sign and magnitude: `7-12=`, `05 19 19`, `00`, `-500`.

    A negative difference comes out modulo 10^n and has to be complemented. Whether all digits so
    far are zero is what the complement's carry would be, so it is written out, a flag per digit:
    without, a token would look at all of them at once (docs/decisions.md).
    """
    borrow: list[int] = []
    digits = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        needs = [x, y, *borrow]
        difference = sheet[x] - sheet[y] - (sheet[borrow[0]] if borrow else 0)
        borrow_out = sheet.put(difference < 0, needs, f"borrow {i}")
        digits.append(sheet.put(difference % 10, needs, f"digit {i}"))
        borrow = [borrow_out]
    negative = borrow[0]
    flags: list[int] = []
    for i, digit in enumerate(digits[:-1]):
        zero = sheet[digit] == 0
        if flags:
            zero = zero & (sheet[flags[-1]] == 1)
        flags.append(sheet.put(zero, [digit, *flags[-1:]], f"zero so far {i}"))

    def answer() -> None:
        below_zero = sheet[negative] == 1
        sheet.put(np.where(below_zero, MINUS, PLUS), [negative], "sign")
        for i, digit in enumerate(digits):
            carried = sheet[flags[i - 1]] if i else 1
            complement = (9 - sheet[digit] + carried) % 10
            needs = [negative, digit, *flags[i - 1 : i]]
            sheet.put(np.where(below_zero, complement, sheet[digit]), needs, f"magnitude {i}")

    return answer


def multiply(sheet: Sheet, a: list[int], b: list[int]) -> Callable[[], None]:
    """Long multiplication: a row for each digit of b, each product as tens and ones with the carry
    in it; then the rows added to a running sum, one after the other."""
    n = len(a)
    rows = []
    for j, y in enumerate(b):
        tens: list[int] = []
        row = []
        for i, x in enumerate(a):
            needs = [x, y, *tens]
            product = sheet[x] * sheet[y] + (sheet[tens[0]] if tens else 0)
            tens_out = sheet.put(product // 10, needs, f"row {j} tens {i}")
            row.append(sheet.put(product % 10, needs, f"row {j} ones {i}"))
            tens = [tens_out]
        rows.append(row + tens)
    total = rows[0]
    for j in range(1, n):
        result, carry = total[:j], list[int]()
        for i, digit in enumerate(rows[j]):
            needs = [*total[i + j : i + j + 1], digit, *carry]
            value = sheet.sum(needs)
            if i < n:  # the last digit has no carry: the product has 2n digits
                carry_out = sheet.put(value // 10, needs, f"sum {j} carry {i + j}")
            result.append(sheet.put(value % 10, needs, f"sum {j} digit {i + j}"))
            carry = [carry_out]
        total = result
    return lambda: _copy(sheet, total)


def divide(sheet: Sheet, a: list[int], b: list[int]) -> Callable[[], None]:
    """Long division: 2, 4 and 8 times the divisor; then for each digit of a the remainder so far
    with that digit brought down is tried against 8, 4, 2 and 1 times the divisor. A trial is its
    borrows (the last one, 1, rejects it) and what remains. `>` marks a multiple over n digits."""
    n = len(a)
    multiples = {1: b}
    for factor in (2, 4, 8):
        half = multiples[factor // 2]
        digits = []
        for i, digit in enumerate(half):
            value = 2 * np.where(sheet[digit] == MORE, 0, sheet[digit])
            value = value + (sheet[half[i - 1]] >= 5 if i else 0)
            if i == n - 1:
                over = (value > 9) | (sheet[digit] == MORE)
                value = np.where(over, MORE, value)
            else:
                value = value % 10
            digits.append(sheet.put(value, [digit, *half[max(i - 1, 0) : i]], f"{factor}b {i}"))
        multiples[factor] = digits

    # The first digit: only a one-digit divisor fits into it, and a table knows how often.
    needs = [a[-1], *b]
    one_digit = np.all([sheet[y] == 0 for y in b[1:]], axis=0) if n > 1 else True
    divisor = np.where(one_digit, np.maximum(sheet[b[0]], 1), 10)
    first = sheet.put(sheet[a[-1]] // divisor, needs, f"quotient {n - 1}")
    remainder = [sheet.put(sheet[a[-1]] % divisor, needs, f"remainder {n - 1}")]
    rejected: dict[int, list[int]] = {}
    for place in range(n - 2, -1, -1):
        remainder = [a[place], *remainder]
        rejected[place] = []
        for factor in (8, 4, 2, 1):
            multiple = multiples[factor]
            reject, remainder = _try(sheet, remainder, multiple, f"place {place} try {factor}")
            rejected[place].append(reject)

    def answer() -> None:
        for place in range(n - 1):
            quotient = sum(
                factor * (1 - sheet[r])
                for factor, r in zip((8, 4, 2, 1), rejected[place], strict=True)
            )
            sheet.put(np.asarray(quotient), rejected[place], f"quotient {place}")
        _copy(sheet, [first])
        _copy(sheet, remainder)

    return answer


def _try(
    sheet: Sheet, remainder: list[int], multiple: list[int], name: str
) -> tuple[int, list[int]]:
    """Subtract a multiple if it fits: the index of the last borrow (1: rejected), what remains."""
    size = len(remainder)
    higher = multiple[size:]
    borrow: list[int] = []
    differences, inputs = [], []
    for i in range(size):
        needs = [remainder[i], multiple[i], *borrow]
        taken = np.where(sheet[multiple[i]] == MORE, 20, sheet[multiple[i]])
        difference = sheet[remainder[i]] - taken - (sheet[borrow[0]] if borrow else 0)
        short = difference < 0
        differences.append(difference)
        inputs.append(needs)
        if i == size - 1:
            for digit in higher:  # digits of the multiple that the remainder has no place for
                short = short | (sheet[digit] != 0)
            needs = [*needs, *higher]
        borrow = [sheet.put(short, needs, f"{name} borrow {i}")]
    reject = borrow[0]
    left = [
        sheet.put(
            np.where(sheet[reject] == 1, sheet[remainder[i]], differences[i] % 10),
            [*inputs[i], reject],
            f"{name} digit {i}",
        )
        for i in range(size)
    ]
    return reject, left


def _copy(sheet: Sheet, digits: Sequence[int]) -> None:
    for i, digit in enumerate(digits):
        sheet.put(sheet[digit], [digit], f"answer {i}")
