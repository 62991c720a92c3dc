/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runtime core calls in the heavy operators: the warm-up and the cache of packed
 * constants. Nothing here generates code at run time: a worker never needs executable memory.
 */
#ifndef PT2BOX_RUNTIME_OPS_HEAVY_H
#define PT2BOX_RUNTIME_OPS_HEAVY_H

#include <stdint.h>

#include "runtime/ops/gemm.h"

/* CPU detection, first product, first convolution. */
void pb_rt_ops_warmup(void);

/* Drop every packed constant (the constants are about to change or go). */
void pb_rt_cache_clear(void);
/* Drop those that were packed from an address in [begin, end). */
void pb_rt_cache_remove(uintptr_t begin, uintptr_t end);
/* Upper bound for packed bytes; more constants are used unpacked. */
void pb_rt_cache_set_limit(uint64_t bytes);
void pb_rt_cache_stats(struct pb_rt_cache_stats *ret_stats);

#endif
