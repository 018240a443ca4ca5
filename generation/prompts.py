"""Every text that we send to a model to make prompts, answers and dialogues, in one place, each with a number and a hash.

In: fields. Out: messages. A row remembers which texts made it (`persona_hard_math@1:3f1c9a20`); when a text is changed, its number goes up
(a test compares the hashes), its calls are new calls for the cache, and rows of before and after can be told apart.

    HARD_MATH.messages(persona="a lighthouse keeper")      # [{"role": "user", "content": "..."}]

The texts are our own; what they ask for follows the papers named beside them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from string import Template
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A text with $fields; `number` goes up when the text changes."""

    name: str
    number: int
    text: str
    system: str = ""

    @property
    def version(self) -> str:
        """Name, number and the beginning of a hash of the text."""
        digest = hashlib.blake2b(f"{self.system}\x1f{self.text}".encode(), digest_size=4).hexdigest()
        return f"{self.name}@{self.number}:{digest}"

    def messages(self, **fields: Any) -> list[dict[str, Any]]:
        """The messages with the fields filled in; a field that is missing is a KeyError, and `$` in a field stays as it is."""
        turns = [{"role": "system", "content": self.system}] if self.system else []
        return [*turns, {"role": "user", "content": Template(self.text).substitute(fields).strip()}]


# Self-Instruct (arXiv 2212.10560): new tasks after examples; is the answer one of a few labels; instances in the right order.

NEW_TASKS = Prompt(
    "self_instruct_tasks", 1,
    """You are adding to a collection of tasks for a text-only assistant. $count tasks are there already, numbered \
below. Continue the list with $wanted more, numbered from $first to $last.

What makes a good addition:
- It differs from the others in what is to be done, not only in its subject: vary the verb, the domain, the \
length and the form of the answer.
- It can be done by reading and writing alone: no pictures, sound, files, web pages or actions in the world.
- It is stated in one or two sentences, as a person would put it: a question or a request.
- It is realistic and can be answered without knowing who asks.

Write only the tasks, each on its own line after its number and a full stop.

$examples""",
)  # fmt: skip

CLASSIFY = Prompt(
    "self_instruct_classify", 1,
    """Some tasks can only be answered with one of a few labels that are fixed beforehand; others have an open answer. \
Which is this?

Say `yes` when the answer is one of a small fixed set of labels. Examples: deciding whether a review is positive \
or negative; naming which of three listed topics an article is about; telling if a sentence is grammatical.
Say `no` when the answer is open. Examples: rewriting a sentence; suggesting a name; solving an equation; listing \
causes of an event.

Task: $instruction

Answer with one word, yes or no.""",
)  # fmt: skip

INSTANCES = Prompt(
    "self_instruct_instances", 1,
    """Here is a task for an assistant:

$instruction

Show up to $count different examples of this task being done. If the task needs material to work on (a text, a \
list, numbers, a situation), invent it in full and give it as the input; if the task says everything already, \
leave the input empty and give a single example. The output is the complete, correct answer, without remarks \
about it.

Answer with JSON of this form and nothing else:
{"examples": [{"input": "...", "output": "..."}]}""",
)  # fmt: skip

LABELLED = Prompt(
    "self_instruct_labelled", 1,
    """Here is a classification task:

$instruction

First think of the labels that an answer can have. Then, for each of up to $count of them, write an input for \
which exactly that label is right. Make the inputs realistic and of different lengths, and do not let an input \
contain the name of its label unless it naturally would.

Answer with JSON of this form and nothing else, the label before its input:
{"examples": [{"output": "the label", "input": "..."}]}""",
)  # fmt: skip

# Persona-driven prompts (Persona Hub, arXiv 2406.20094; the skills of Tülu 3, arXiv 2411.15124): one persona, one kind of problem.

PERSONA_IF = Prompt(
    "persona_instruction_following", 1,
    """Think of this person:

$persona

Write one request that this person could really make of an assistant, out of their life, work or interests. The \
request must ask for an answer that obeys all of the following requirements, and each must be stated in the \
request so clearly that somebody else can check it word for word:

$constraints

Weave the requirements into the request in your own order; change no number, word or format in them and add no \
others. Do not mention that there is a persona, and do not answer the request. Write the request and nothing \
else.""",
)  # fmt: skip

RELAX = Prompt(
    "persona_relax", 1,
    """Below is a request, and one requirement that is part of it. Rewrite the request so that this requirement is gone \
altogether: nothing in the new request may ask for it, hint at it or make it likely. Keep everything else as it \
is, the other requirements word for word.

Request:
$request

Requirement to remove:
$constraint

Write the new request and nothing else.""",
)  # fmt: skip

HARD_MATH = Prompt(
    "persona_hard_math", 1,
    """Think of this person:

$persona

Write one advanced mathematics problem that could only have come out of this person's world. It should demand \
real insight: somebody who has won prizes in mathematics competitions should have to work for it, and no single \
formula should give it away. Every quantity needed must be in the text, the problem must have exactly one final \
answer (a number or a closed expression), and it may have at most two parts that build on one another.

Write the problem and nothing else: no solution, no hint, no heading.""",
)  # fmt: skip

GRADE_MATH = Prompt(
    "persona_grade_math", 1,
    """Think of this person:

$persona

Write one word problem, set in this person's everyday life, that a good pupil of about ten to twelve can solve. \
It takes two to eight small steps, each an addition, subtraction, multiplication or division, and ends in a \
single whole number or a simple decimal. All the numbers needed are in the text, and they are realistic.

Write the problem and nothing else: no solution, no hint, no heading.""",
)  # fmt: skip

ALGEBRA = Prompt(
    "persona_algebra", 1,
    """Think of this person:

$persona

Write one problem of secondary-school algebra that fits this person's world, on the subject of $topic. It must \
be solvable with the tools of that subject, contain all that is needed, and have exactly one final answer (a \
number, an expression, or an interval).

Write the problem and nothing else: no solution, no hint, no heading.""",
)  # fmt: skip

CODE = Prompt(
    "persona_code", 1,
    """Think of this person:

$persona

This person has a little programming problem and asks for one Python function. Write the question: what the \
function is called and should do, what its arguments are, what it returns, how edge cases are to be treated, and \
one or two example calls with their results. It should be of beginner to medium difficulty, need only the \
standard library, and be testable by calling it.

Write the question and nothing else: no code beyond the signature and the example calls, no solution.""",
)  # fmt: skip

KNOWLEDGE = Prompt(
    "persona_knowledge", 1,
    """Think of this person:

$persona

Write one question about a subject that this person knows well, as somebody would ask who wants to learn it from \
them. It should need explanation, not a single word; it should have a well-established answer; and it should be \
understandable without knowing the person.

Write the question and nothing else.""",
)  # fmt: skip

CHAT = Prompt(
    "persona_chat", 1,
    """Think of this person:

$persona

Write the message with which this person opens a conversation with an assistant: something they want help with, \
want to talk over, have written or want made. Let it sound like them, with their own level of detail, and let it \
stand alone: whatever it refers to is in the message.

Write the message and nothing else.""",
)  # fmt: skip

# Answers to what was made.

ANSWER_IF = Prompt("answer_constraints", 1, "$prompt", "Do what the user asks. Follow every requirement of the request to the letter.")

ANSWER_MATH = Prompt(
    "answer_math", 1,
    """$prompt

Solve this step by step. Put the final answer, and only it, into \\boxed{} on the last line.""",
)  # fmt: skip

ANSWER_CODE = Prompt(
    "answer_code", 1,
    """$prompt

Answer with the function in one Python code block, complete with its imports, and nothing after the block.""",
)  # fmt: skip

ANSWER = Prompt("answer", 1, "$prompt")

# Constraints added to prompts that exist (Tülu 3's IF-augmented).

CONSTRAIN = Prompt(
    "constrain", 1,
    """Below are a request and some requirements for its answer. Put them together into one natural request that asks \
for the same thing and states every requirement so that it can be checked word for word.

Request:
$request

Requirements:
$constraints

Leave the task itself as it is, change no number, word or format in the requirements, add no others, and do not \
answer. Write the new request and nothing else.""",
)  # fmt: skip

# Evol-Instruct (WizardLM, arXiv 2304.12244): five ways deeper, one way broader, and the question whether it was worth it.

_EVOLVE = """Below is a request to an assistant. Make it $direction, so that answering it well is a somewhat harder piece of \
work, and give back the new request.

How: $how

Rules: The new request must be reasonable, understandable to people, and possible to answer with text alone. \
Grow it by ten to twenty words, not more. If it comes with material (a text, a table, code, an input), keep that \
material complete. Do not answer it, do not explain what you did, and do not speak of the old request.

The request:
$request"""

HOWS = {
    "constrain": ("more demanding", "add one more condition that its answer has to meet"),
    "deepen": ("deeper", "widen or deepen what it asks, so that an answer has to go further into the matter"),
    "concretize": ("more specific", "replace something general in it by something specific and concrete"),
    "reason": ("harder to think through", "change it so that several steps of reasoning are needed where few were enough before"),
    "complicate": (
        "richer in material",
        "add a realistic piece of input that has to be worked with: some data, a formula, a snippet of code, a short table or document",
    ),
}

DEEPER = {
    name: Prompt(f"evolve_{name}", 1, Template(_EVOLVE).safe_substitute(direction=direction, how=how))
    for name, (direction, how) in HOWS.items()
}

BROADER = Prompt(
    "evolve_breadth", 1,
    """Below is a request to an assistant. Invent a new one that belongs to the same field but asks for something else, \
something that is asked more rarely. It should be about as long and as hard as the old one, reasonable, \
understandable to people, and possible to answer with text alone.

Write the new request and nothing else; do not answer it, and do not speak of the old one.

The request:
$request""",
)  # fmt: skip

SAME = Prompt(
    "evolve_same", 1,
    """Two requests to an assistant follow. Do they come to the same thing: the same conditions and requirements, the \
same depth and breadth of what is asked, so that one good answer would serve for both?

First request:
$first

Second request:
$second

Answer with one word: same or different.""",
)  # fmt: skip

# Dialogues (dSFT of Zephyr, arXiv 2310.16944, on UltraChat's plan): the teacher answers, then the request is refined, or a user goes on.

REFINE = Prompt(
    "dialogue_refine", 1,
    """An assistant was asked this:

$request

and answered this:

$answer

Write an improved version of the request, one that would have drawn out a better answer: say more exactly what \
is wanted, close the gaps that the answer shows, and ask for what is missing in it. It must stand alone, without \
reference to the old request or the answer.

Write the new request and nothing else.""",
)  # fmt: skip

NEXT_TURN = Prompt(
    "dialogue_user", 1,
    """Below is a conversation between a person and an assistant. Write what the person says next.

$conversation

The person is human: they react to what was just said, and they may ask for more detail on one point, object, \
bring in something about their own case, ask for a change, or move on to a related matter. They do not thank at \
length, do not answer in the assistant's place and do not repeat themselves. Keep it as long as people's \
messages are. If nothing remains to be said, write exactly: $done

Write the person's message and nothing else.""",
)  # fmt: skip

ALL = [
    NEW_TASKS, CLASSIFY, INSTANCES, LABELLED, PERSONA_IF, RELAX, HARD_MATH, GRADE_MATH, ALGEBRA, CODE, KNOWLEDGE, CHAT,
    ANSWER_IF, ANSWER_MATH, ANSWER_CODE, ANSWER, CONSTRAIN, *DEEPER.values(), BROADER, SAME, REFINE, NEXT_TURN,
]  # fmt: skip
VERSION = hashlib.blake2b(" ".join(p.version for p in ALL).encode(), digest_size=8).hexdigest()
