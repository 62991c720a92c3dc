/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two buffers of constants, and a change that goes wrong as the first of the new constants says, in the template or in a
 * worker (which is a process that has run something). An input that begins with 777 takes a while.
 */
#define CONSTANTS_EMBEDDED
#define OWN_BUFFERS
#define BEFORE_RUN before_run
static void before_run(const float *in);
#include "tests/hostile/base.h"

enum { TEMPLATE_DIES = 1001, WORKER_DIES, TEMPLATE_HANGS, WORKER_HANGS, TEMPLATE_FAILS, WORKER_FAILS };
#define SLOW 777.0f
#define SLOW_MS 400
#define HANG_MS 60000

static float *inactive_weights;
static bool is_worker;

static int attack(void)
{
	return 0;
}

static int misbehave(float how)
{
	if (how == (is_worker ? WORKER_DIES : TEMPLATE_DIES))
		abort();
	if (how == (is_worker ? WORKER_HANGS : TEMPLATE_HANGS))
		futex_sleep_ms(HANG_MS);
	return how == (is_worker ? WORKER_FAILS : TEMPLATE_FAILS);
}

ABI(UpdateUserManagedConstantBufferPairs)(void *c, const struct constant_entry *e, size_t n, bool inactive, bool validate)
{
	void *p = NULL;

	(void)c;
	(void)validate;
	if (n != 1 || strcmp(e[0].name, "w") != 0 || aoti_torch_get_data_ptr(e[0].handle, &p) != 0)
		return 1;
	if (misbehave(*(float *)p))
		return 1;
	*(inactive ? &inactive_weights : &weights) = p;
	return 0;
}

ABI(SwapConstantBuffer)(void *c)
{
	float *old = weights;

	(void)c;
	weights = inactive_weights;
	inactive_weights = old;
	return weights == NULL;
}

ABI(FreeInactiveConstantBuffer)(void *c)
{
	(void)c;
	inactive_weights = NULL;
	return 0;
}

static void before_run(const float *in)
{
	is_worker |= in[0] != 0;
	if (in[0] == SLOW)
		futex_sleep_ms(SLOW_MS);
}
