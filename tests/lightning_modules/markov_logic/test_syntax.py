"""The language: what is read, and what every mistake is told."""

from __future__ import annotations

import re

import pytest

from lightning_modules.markov_logic.parser import FormulaError, parse
from lightning_modules.markov_logic.syntax import And, Atom, Equal, Not, Or, Term

HEADER = """
Gender(user, gender!)   // exactly one
Smokes(user)
*HasWord(user, word)
*Replies(user, user)
gender = {F, M, "not said"}
"""


def one(formula: str):
    """The expression of one formula after the header."""
    return parse(HEADER + formula).formulas[0]


def test_declarations():
    program = parse(HEADER)
    assert [(p.name, p.types, p.is_evidence, p.has_one_value) for p in program.predicates.values()] == [
        ("Gender", ("user", "gender"), False, True),
        ("Smokes", ("user",), False, False),
        ("HasWord", ("user", "word"), True, False),
        ("Replies", ("user", "user"), True, False),
    ]
    assert program.unit == "user"
    assert [predicate.name for predicate in program.attributes] == ["Gender", "Smokes"]
    assert program.domains == {"gender": ("F", "M", "not said")}


def test_a_bare_atom_is_a_declaration_first_and_then_a_formula():
    program = parse("Smokes(user)\nSmokes(x)\n")
    assert [formula.text for formula in program.formulas] == ["Smokes(x)"]


def test_variables_types_and_weights():
    formula = one("1.5 HasWord(u, +w) ^ Replies(u, o) => Gender(o, +g)  // because")
    assert formula.weight == 1.5
    assert formula.types == {"u": "user", "w": "word", "o": "user", "g": "gender"}
    assert formula.weighted == ("w", "g")
    assert formula.text == "HasWord(u, +w) ^ Replies(u, o) => Gender(o, +g)"


@pytest.mark.parametrize("number", ["-2", "+0.5", "3e-1", "2.25"])
def test_numbers(number):
    assert one(f"{number} Smokes(x) ^ Smokes(y)").weight == float(number)


def test_connectives_bind_not_then_and_then_or_then_implies_then_equivalent():
    def smokes(name):
        return Atom(parse(HEADER).predicates["Smokes"], (Term(name, True),))

    a, b, c, d = map(smokes, "abcd")
    assert one("!Smokes(a) ^ Smokes(b) v Smokes(c)").expression == Or(And(Not(a), b), c)
    assert one("Smokes(a) v Smokes(b) ^ Smokes(c)").expression == Or(a, And(b, c))
    assert one("Smokes(a) => Smokes(b) => Smokes(c)").expression == Or(Not(a), Or(Not(b), c))
    assert one("Smokes(a) ^ Smokes(b) => Smokes(c) v Smokes(d)").expression == Or(Not(And(a, b)), Or(c, d))
    both = And(Or(Not(a), Or(b, c)), Or(Not(Or(b, c)), a))
    assert one("Smokes(a) <=> Smokes(b) v Smokes(c)").expression == both
    assert one("!(Smokes(a) v Smokes(b))").expression == Not(Or(a, b))
    assert one("!!Smokes(a)").expression == Not(Not(a))


def test_equality_and_constants():
    formula = one('Gender(u, g) ^ g != "not said" => Gender(u, F)')
    gender = parse(HEADER).predicates["Gender"]
    u, g = Term("u", True), Term("g", True)
    left = And(Atom(gender, (u, g)), Not(Equal(g, Term("not said", False))))
    assert formula.expression == Or(Not(left), Atom(gender, (u, Term("F", False))))


def test_a_formula_may_go_on_in_the_next_line():
    text = "Smokes(a) ^ // one\n  Smokes(b) =>\n\n  Gender(a,\n F)"
    assert one(text).text == "Smokes(a) ^ Smokes(b) => Gender(a, F)"


def test_japanese_names_of_values():
    program = parse("Job(user, job!)\njob = {学生, 会社員}\nJob(u, +j)\n")
    assert program.domains["job"] == ("学生", "会社員")


MISTAKES = {
    "Gendr(u, +g)": (7, 1, "unknown predicate Gendr (known: Gender, Smokes, HasWord, Replies); declare it above"),
    "HasWord(u, +w) => Gender(u)": (7, 19, "Gender has 2 arguments (user, gender), got 1"),
    "Smokes(u) => Gender(u, X)": (7, 24, "'X' is no gender; there are F, M, not said"),
    "Gender(u, g) ^ HasWord(u, g)": (7, 27, "g is a gender elsewhere in this formula, here a word is expected"),
    "Smokes(u) ^ ^ Smokes(v)": (7, 13, "expected a name or a text in quotes or a number, got '^'"),
    "Smokes(u) Smokes(x)": (7, 11, "expected the end of the line, got 'Smokes'"),
    "Smokes(u": (7, 8, "the line ends where ')' is expected"),
    "(Smokes(u) ^ Smokes(x)": (7, 22, "the line ends where ')' is expected"),
    "Smokes(u) & Smokes(x)": (7, 11, "unexpected character '&'"),
    "Smokes(Anna) ^ Smokes(x)": (7, 8, "Anna stands where a user is expected; formulas hold for all of them"),
    "Gender(u, +F)": (7, 12, "+ is for variables, F is a constant"),
    "Smokes(+u) => Gender(u, +g)": (7, 9, "+u: a user has no weights of its own"),
    "Smokes(u) => Gender(u, +g).": (7, 27, "formulas that must hold ('.') are not supported; give a large weight"),
    "EXIST(x) ^ Smokes(x)": (7, 1, "EXIST is not supported: formulas have no quantifiers"),
    "2.5": (7, 1, "a weight without a formula"),
    "gender = {A, B}": (7, 1, "the values of gender are given twice"),
    "word = {red, red}": (7, 14, "the value red is there twice"),
    "*Smokes(user)": (7, 2, "Smokes is declared twice"),
    "*Knows(person, user)": (7, 8, "all predicates are about a user, the first argument; got 'person'"),
    "*Colour(user, colour!)": (7, 21, "evidence has no '!': it is given"),
    "Likes(user, thing)": (7, 1, "a predicate to infer is Likes(user), true or false, or Likes(user, value!)"),
    "Boss(user, user!)": (7, 12, "the value of Boss cannot be a user"),
    "u = o => Smokes(u)": (7, 5, "expected '{', got 'o'"),
    "Smokes(u)\nSmokes(u)": (8, 1, "this formula is there twice"),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.items(), ids=MISTAKES)
def test_mistakes_name_line_and_column(text, told):
    line, column, message = told
    with pytest.raises(FormulaError, match=re.escape(f"ja.mln, line {line}, column {column}: {message}")):
        parse(HEADER + text, "ja.mln")


def test_nothing_to_infer():
    with pytest.raises(ValueError, match=r"ja.mln: no predicate to infer is declared, such as Gender"):
        parse("*HasWord(user, word)", "ja.mln")
