"""Name the tokens: a character each, and END.

The ids of the digits are the digits themselves, so a column of digits is already a column of
tokens. `>` marks a multiple that has outgrown its digits (division). END closes every answer; a
model that never writes it is counted as infinite generation.
"""

CHARACTERS = "0123456789+-*/=>"
IDS = {character: index for index, character in enumerate(CHARACTERS)}
END = len(CHARACTERS)
VOCABULARY_SIZE = END + 1
