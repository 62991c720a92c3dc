/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mt19937 as in PyTorch's CPU generator (ATen/core/MT19937RNGEngine.h), so that a seed gives the
 * same numbers there and here. The worker seeds before every run, and most models never draw: the
 * state is made at the first draw.
 */
#include "runtime/random.h"

#include <stdbool.h>

#include "runtime/hooks.h"

#define N 624
#define M 397

static uint32_t state[N], next = N, seed = 5489;
static bool seeded;
static uint64_t epoch;

void pb_rt_seed(uint64_t value)
{
	seed = (uint32_t)value;
	seeded = false;
	epoch++;
}

uint64_t pb_rt_random_epoch(void)
{
	return epoch;
}

static void fill(void)
{
	state[0] = seed;
	for (uint32_t i = 1; i < N; i++)
		state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
	next = N;
	seeded = true;
}

static void advance(void)
{
	for (int i = 0; i < N; i++) {
		const uint32_t v = (state[i] & 0x80000000u) | (state[(i + 1) % N] & 0x7fffffffu);

		state[i] = state[(i + M) % N] ^ (v >> 1) ^ (v & 1 ? 0x9908b0dfu : 0);
	}
	next = 0;
}

uint32_t pb_rt_random32(void)
{
	uint32_t y;

	if (!seeded)
		fill();
	if (next == N)
		advance();
	y = state[next++];
	y ^= y >> 11;
	y ^= (y << 7) & 0x9d2c5680u;
	y ^= (y << 15) & 0xefc60000u;
	return y ^ (y >> 18);
}

uint64_t pb_rt_random64(void)
{
	const uint64_t high = pb_rt_random32();

	return high << 32 | pb_rt_random32();
}
