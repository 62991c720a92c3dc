/* SPDX-License-Identifier: Apache-2.0 */
/* Crashes one after the other, and how soon the model is served again. */
#ifndef TESTS_LIB_CYCLES_H
#define TESTS_LIB_CYCLES_H

#include <stddef.h>
#include <stdint.h>

/*
 * Crash a model's worker @n times (tests/hostile/segfault.3.so in @models), each crash followed by a good run. ret_us (may be
 * NULL) gets @n times from the crash's answer to the next good one. A worker that keeps dying young is replaced more and
 * more slowly, so the model is loaded anew every eight crashes. NULL: all well; else what was not.
 */
const char *test_crash_n_times(const char *socket, const char *dir, const char *models, size_t n, uint32_t *ret_us);

#endif
