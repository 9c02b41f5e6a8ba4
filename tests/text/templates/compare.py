"""Renders what kiln rendered, by the machinery of transformers, and tells every difference.

compare.py CASES.json: a list of {name, source, variables, text, spans or null, error or null}.
"""
import json
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template, _render_with_assistant_indices


def render(case):
    template = _compile_jinja_template(case["source"])
    variables = dict(case["variables"])
    if case["spans"]:
        messages = variables.pop("messages")
        tools = variables.pop("tools", None)
        documents = variables.pop("documents", None)
        prompt = variables.pop("add_generation_prompt", False)
        return _render_with_assistant_indices(template, messages, tools, documents, prompt, **variables)
    return template.render(**variables), []


wrong = 0
cases = json.load(open(sys.argv[1], encoding="utf-8"))
for case in cases:
    try:
        text, spans = render(case)
        error = None
    except Exception as e:  # whatever the template or its machinery refuses
        text, spans, error = None, [], f"{type(e).__name__}: {e}"
    if (error is None) != (case["error"] is None) or text != case["text"]:
        wrong += 1
        ours, theirs = case["text"] or "", text or ""
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        print(f"{case['name']}: from character {at}\n  kiln   {ours[at:at + 80]!r} {case['error']}\n"
              f"  jinja2 {theirs[at:at + 80]!r} {error}")
    elif case["spans"] and text is not None:
        ours = [text.encode()[b:e].decode() for b, e in case["spans"]]
        theirs = [text[b:e] for b, e in spans]
        if ours != theirs:
            wrong += 1
            print(f"{case['name']}: marked {ours} and {theirs}")
print(f"{len(cases)} cases, {wrong} differ")
sys.exit(wrong > 0)
