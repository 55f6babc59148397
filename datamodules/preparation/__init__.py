"""From records to token shards: splits, reply pairs, tokenizer, Parquet. No torch, no lightning."""
