# ruff: noqa: E501 - a template line reads better whole
"""Small tokenizers with chat templates in the shape of well-known families.

Each template is written here with ``{% generation %}`` around what the assistant generates. The
renderer under test gets it *without* these marks; transformers reads them with
``return_assistant_tokens_mask`` and is the oracle.
"""

import json
import re
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The order has not arrived yet, where is it? I would like my money back, please.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # three",
    '{"name": "get_weather", "arguments": {"city": "Tehran", "days": 3}}',
    "سلام، می‌خواهم بدانم سفارش من کجاست؟ کتاب‌ها هنوز نرسیده‌اند.",
    "هوا امروز خیلی خوب است و ما به پارک می‌رویم 🙂 🚀",
    "user assistant system model tool question answer thinking functions",
] * 4
MARKS = re.compile(r"\{% (?:end)?generation %\}")

CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '\n<call>' + c.function | tojson + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content }}"
    "{% if loop.first and tools %}{{ '\n' + tools | tojson }}{% endif %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% set given = messages[0].content | trim if messages[0].role == 'system' else '' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + date_string + '\n\n' + given + '<|eot_id|>' }}"
    "{% set first = namespace(user=true) %}"
    "{% for m in messages if m.role != 'system' %}"
    "{% set role = 'ipython' if m.role == 'tool' else m.role %}"
    "{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}"
    "{% if m.role == 'user' and first.user and tools %}{% set first.user = false %}"
    "{{ 'Functions: ' + tools | tojson + '\n\n' }}{% endif %}"
    "{% if m.role == 'assistant' %}{% generation %}"
    '{% if m.tool_calls %}{{ \'{"name": "\' + m.tool_calls[0].function.name + \'", "parameters": \' }}'
    "{{ m.tool_calls[0].function.arguments | tojson + '}<|eom_id|>' }}"
    "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endgeneration %}"
    "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# The system prompt and the tools stand before the *last* question, so no half is a beginning of the whole.
MISTRAL = (
    "{% set given = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% set place = namespace(last=-1) %}"
    "{% for m in turns %}{% if m.role == 'user' %}{% set place.last = loop.index0 %}{% endif %}{% endfor %}"
    "{{ bos_token }}{% for m in turns %}"
    "{% if m.role == 'user' %}{% if loop.index0 == place.last and tools %}"
    "{{ '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{ '[INST] ' }}{% if loop.index0 == place.last and given %}{{ given + '\n\n' }}{% endif %}"
    "{{ m.content + '[/INST]' }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}"
    "{% elif m.role == 'assistant' %}{% generation %}"
    "{% if m.tool_calls %}{{ '[TOOL_CALLS]' }}{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}"
    "{% else %}{{ ' ' + m.content | trim }}{% endif %}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
)

GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' or m.role == 'tool' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ '<start_of_turn>model\n' }}"
    "{% generation %}{{ m.content | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<start_of_turn>user\n' + m.content | trim + '<end_of_turn>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

# Thinking stands in the turns after the last question only; without thinking the prompt holds an empty one.
QWEN3 = (
    "{% set has_system = messages[0].role == 'system' %}"
    "{% if tools %}{{ '<|im_start|>system\n' + (messages[0].content + '\n\n' if has_system else '') }}"
    "{% for t in tools %}{{ t | tojson + '\n' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% elif has_system %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    "{% set place = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set place.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% set quiet = enable_thinking is defined and not enable_thinking %}"
    "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}"
    "{% if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% set why = (m.reasoning_content or '') | trim %}"
    "{% set block = '<think>\n' + why + '\n</think>\n\n' if loop.index0 > place.last and (loop.last or why) else '' %}"
    "{% if quiet and block and not why %}{{ block }}{% set block = '' %}{% endif %}"
    "{% generation %}{{ block + m.content.lstrip('\n') }}"
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' + c.function | tojson + '\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if quiet %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)

PHI = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ '<|assistant|>\n' }}"
    "{% generation %}{{ m.content | trim + '<|end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)

# The prompt opens the thinking; turns that are over keep the answer alone.
REASONER = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ '<|Assistant|>' }}"
    "{% set why = m.reasoning_content %}{% if loop.last and why %}{{ '<think>\n' }}{% endif %}"
    "{% generation %}{% if loop.last and why %}{{ why + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content + eos_token }}{% endgeneration %}"
    "{% elif m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)

FAMILIES = {
    "chatml": (CHATML, "bytes", ["<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>"}),
    "llama3": (
        LLAMA3,
        "bytes",
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "mistral": (
        MISTRAL,
        "unigram",
        [
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
        ],
        {"bos_token": "<s>", "eos_token": "</s>"},
    ),
    "gemma": (
        GEMMA,
        "fallback",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        {"bos_token": "<bos>", "eos_token": "<eos>"},
    ),
    "qwen3": (QWEN3, "bytes", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>"}),
    "phi": (
        PHI,
        "bytes",
        ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        {"eos_token": "<|endoftext|>"},
    ),
    "reasoner": (
        REASONER,
        "bytes",
        ["<|begin|>", "<|User|>", "<|Assistant|>", "<|eos|>"],
        {"bos_token": "<|begin|>", "eos_token": "<|eos|>"},
    ),
}


@cache
def trained(kind: str, special: tuple[str, ...]) -> str:
    """A tokenizer of some 500 pieces as JSON: byte-level BPE, Unigram, or BPE with byte fallback."""
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=480,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    value = json.loads(tokenizer.to_str())
    if kind == "fallback":
        vocabulary = value["model"]["vocab"]
        for byte in range(256):
            vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return json.dumps(value)


def make(family: str, *, marked: bool = False, strips: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of a family; ``marked`` keeps ``{% generation %}``, ``strips`` lets tokens eat white space."""
    template, kind, special, names = FAMILIES[family]
    inner = Tokenizer.from_str(trained(kind, tuple(special)))
    if strips:
        inner.add_special_tokens([AddedToken(text, rstrip=True, special=True) for text in special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.chat_template = template if marked else MARKS.sub("", template)
    return tokenizer
