"""Lower precision: float16, bfloat16 and int8 models made from float32 ones that keep the contract."""
