SIXTEEN_BITS = ["lm_head"]
