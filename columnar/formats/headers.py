"""The field names that public files use: how a header row is told from a first row of data."""

from __future__ import annotations

_WORDS = """
act answer answer_a answer_b answers assistant behavior behaviour category chosen chosen_score completion completion_a completion_b
content context cot conversation conversations difficulty dialog dialogue ground_truth history human id idx index input input_text
inputs instance instruction instructions key label labels level messages meta metadata model name options output outputs persona
preference problem prompt prompt_id query question question_id rating rationale reason rejected rejected_score response response_1
response_2 responses role score solution source split subject system system_prompt target targets task task_id test text title topic
turns type user utterance uuid value
"""
_PHRASES = {"best answer", "input persona", "user 1 personas", "response 1", "response 2"}
KNOWN = _PHRASES.union(_WORDS.split())
