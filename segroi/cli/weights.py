"""Look into a weights file, check it, or write it as safetensors; nothing in it is run.

segroi weights runs/mine/model_final.pth
segroi weights model.pth --sha256 HEX --to model.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from segroi.utils.suggest import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("file", metavar="FILE", help="a .pth or .safetensors file of segroi train")
    add("--sha256", default="", metavar="HEX", help="refuse the file if it has another digest")
    add("--to", metavar="FILE", help="write the weights as this .safetensors file")
    add("--force", action="store_true", help="replace what is there")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what the file holds, and convert it where asked to."""
    from segroi.tv.checkpoint import load_checkpoint
    from segroi.utils.safe_files import check_sha256, sha256, write_safetensors

    check_sha256(args.file, args.sha256)
    content = load_checkpoint(args.file)
    tensors = content.pop("state_dict")
    facts = {
        "model": content["model"],
        "categories": [category["name"] for category in content["categories"]],
        "parameters": sum(t.numel() for t in tensors.values() if t.is_floating_point()),
        "iteration": content.get("iteration"),
        "commit": content.get("provenance", {}).get("commit"),
        "sha256": sha256(args.file),
    }
    if args.to:
        target = Path(args.to)
        if target.suffix != ".safetensors":
            raise UsageError(f"--to must end in .safetensors, got {target}")
        if target.exists() and not args.force:
            raise UsageError(f"{target} exists: --force replaces it")
        content.pop("optimizer", None)  # what resumes a run stays in the run's folder
        write_safetensors(target, tensors, content)
        facts["written"] = str(target)
    print(json.dumps(facts, indent=2) if args.json else _lines(facts))
    return 0


def _lines(facts: dict[str, object]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}s}  {value}" for name, value in facts.items())
