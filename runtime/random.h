/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU generator: PyTorch's stream of random bits for a seed. */
#ifndef PT2BOX_RUNTIME_RANDOM_H
#define PT2BOX_RUNTIME_RANDOM_H

#include <stdint.h>

uint32_t pb_rt_random32(void);
/* Two draws, the first one is the upper half. */
uint64_t pb_rt_random64(void);
/* Another number after every seed: what was kept of draws before it is void. */
uint64_t pb_rt_random_epoch(void);

#endif
