/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runtime core calls in the heavy operators: warm-up, the caches of packed constants and
 * primitives, and whether code may be generated at run time.
 */
#ifndef PT2BOX_RUNTIME_OPS_HEAVY_H
#define PT2BOX_RUNTIME_OPS_HEAVY_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/ops/gemm.h"

/* False (profile strict): nothing may make memory executable; our own kernels do everything.
 * Default true. */
void pb_rt_set_jit(bool allowed);
bool pb_rt_jit_allowed(void);

/* CPU detection, first GEMM, first convolution, oneDNN's first primitives where JIT is allowed. */
void pb_rt_dnnl_warmup(void);

/* Drop every packed constant and cached primitive (the constants are about to change or go). */
void pb_rt_cache_clear(void);
/* Upper bound for packed bytes; more constants are used unpacked. */
void pb_rt_cache_set_limit(uint64_t bytes);
void pb_rt_cache_stats(struct pb_rt_cache_stats *ret_stats);

#endif
