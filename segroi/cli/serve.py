"""Open a page on this machine where a trained model looks at the images that you drop on it.

segroi serve --weights runs/mine

Needs gradio (pip install "segroi[serve]"). The page is for this machine only unless --host says
otherwise, and nothing is sent anywhere: images stay here.
"""

from __future__ import annotations

import argparse

from segroi.cli._model import load_detector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add(
        "--weights", required=True, metavar="FILE", help="of segroi train (or its folder), or .onnx"
    )
    add("--port", type=int, default=7860, help="of the page (%(default)s)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (%(default)s)")
    add("--size", type=int, metavar="PX", help="short side, if other than in training")
    add("--device", default="", metavar="NAME", help="cpu, cuda, cuda:1, ...")


def run(args: argparse.Namespace) -> int:
    """Serve until the user stops it."""
    from segroi.cli._page import build_page, import_gradio

    gradio = import_gradio()  # before the weights are read
    model, categories = load_detector(args.weights, args.size, args.device)
    page = build_page(model, categories)
    print(f"http://{args.host}:{args.port} (Ctrl-C stops it)", flush=True)
    page.launch(
        server_name=args.host,
        server_port=args.port,
        share=False,
        quiet=True,
        max_file_size="32mb",
        footer_links=[],
        # the default theme has browsers load fonts from elsewhere
        theme=gradio.themes.Default(font="system-ui", font_mono="monospace"),
    )
    return 0
