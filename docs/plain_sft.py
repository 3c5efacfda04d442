"""QLoRA by plain trl: what `hotswap train` is measured against (`python -m tests.proofs training_speed`).

    python docs/plain_sft.py BASE ROWS.jsonl OUT [--epochs 3] [--max-steps N] [--checkpointing]

trl's own trainer with its own defaults, on the same base in NF4, with the same rows, the same learned tokens
(each answer and the token that ends it), the same rank, batch size and learning rate. Prints one JSON object.
`--checkpointing` leaves trl's default on, which trades time for memory.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("base")
parser.add_argument("rows")
parser.add_argument("out")
parser.add_argument("--epochs", type=float, default=3)
parser.add_argument("--max-steps", type=int, default=-1)
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--learning-rate", type=float, default=1e-3)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--checkpointing", action="store_true")
given = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(given.base)
model = AutoModelForCausalLM.from_pretrained(
    given.base,
    dtype=torch.bfloat16,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    ),
)
rows = []
for line in Path(given.rows).read_text(encoding="utf-8").splitlines():
    *asked, answer = json.loads(line)["messages"]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    rows.append({"prompt": prompt, "completion": answer["content"] + tokenizer.eos_token})
trainer = SFTTrainer(
    model=model,
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
    peft_config=LoraConfig(
        r=given.rank, lora_alpha=2 * given.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    ),
    args=SFTConfig(
        output_dir=given.out,
        per_device_train_batch_size=given.batch_size,
        num_train_epochs=given.epochs,
        max_steps=given.max_steps,
        learning_rate=given.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=given.checkpointing,
        save_strategy="no",
        report_to="none",
        logging_steps=10,
        seed=given.seed,
    ),
)
began = time.monotonic()
trainer.train()
seconds = time.monotonic() - began
trainer.model.save_pretrained(given.out)
print(json.dumps({"seconds": seconds, "steps": trainer.state.global_step}))
