"""What is evaluated in tests: a small network, and the command."""

from face_destyle import FDNNConfig
from train import evaluate

PEOPLE = 4
SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)


def command(parts: dict[str, str], *more: str) -> int:
    arguments = [text for name, value in parts.items() for text in (f"--{name}", value)]
    return evaluate.main([*arguments, *more])
