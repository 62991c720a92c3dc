/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S02 at length: crash cycles against one broker, what it holds before and after, and how soon a model is served again.
 * usage: crash_cycles [N]	(10000)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/broker.h"
#include "tests/lib/cycles.h"

#define WARM 200

static int by_value(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
	uint32_t *us = calloc(n, sizeof(*us));
	struct test_resources before, after;
	struct test_broker b;
	struct test_paths paths;
	long rss, began, took;
	const char *why;

	test_paths_init(&paths);
	if (!us || n == 0 || test_broker_start(&b, paths.programs) != 0)
		return 1;
	why = test_crash_n_times(b.socket, b.dir, paths.models, WARM, NULL);
	test_broker_resources(&b, &before);
	rss = test_broker_rss_kib(&b);
	began = test_now_ms();
	if (!why)
		why = test_crash_n_times(b.socket, b.dir, paths.models, n, us);
	took = test_now_ms() - began;
	if (!why)
		why = test_broker_back_to(&b, &before, 5000);
	test_broker_resources(&b, &after);
	qsort(us, n, sizeof(*us), by_value);
	printf("%zu crashes in %.1f s; crash to next good reply: p50 %.2f ms, p99 %.2f ms, slowest %.2f ms\n", n,
	       (double)took / 1000, us[n / 2] / 1e3, us[n - 1 - n / 100] / 1e3, us[n - 1] / 1e3);
	printf("before and after: descriptors %d, %d; processes %d, %d; control groups %d, %d; /dev/shm %d, %d; memory %ld, %ld KiB\n",
	       before.fds, after.fds, before.processes, after.processes, before.groups, after.groups, before.shm, after.shm, rss,
	       test_broker_rss_kib(&b));
	if (why)
		printf("FAILED: %s\n", why);
	if (test_broker_stop(&b))
		why = "left";
	test_remove_tree(b.dir);
	free(us);
	return why != NULL;
}
