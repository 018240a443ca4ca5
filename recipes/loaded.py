"""What commands share, loaded once: imported by the process that forks for them (recipes.workers), and by nobody else."""

import aiohttp.web
import datasets
import duckdb
import httpx2
import pyarrow.parquet
import torch
import transformers
import trl
from trl import DPOTrainer, GRPOTrainer, RewardTrainer, SFTTrainer

import columnar.config
import curation.mix
import decontam.ngrams
import generation.client
import training.run

LOADED = (
    *(aiohttp.web, datasets, duckdb, httpx2, pyarrow.parquet, torch, transformers, trl),
    *(DPOTrainer, GRPOTrainer, RewardTrainer, SFTTrainer),
    *(columnar.config, curation.mix, decontam.ngrams, generation.client, training.run),
)
decontam.ngrams.fold_table()  # built once, for every scan
