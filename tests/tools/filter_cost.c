/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the filters cost a call of the small model (tests/fixtures/mlp): two brokers of the same programs, one without any
 * seccomp filter (confine/test_layers.h), in turns; the lowest of the medians of each.
 * usage: filter_cost [ROUNDS [CALLS]]	(9, 20000)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/layered.h"
#include "tests/lib/package.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static struct side {
	const char *off;
	struct test_layered world;
	struct pt2box *c;
	struct pt2box_model *m;
	struct pt2box_tensor *in;
	uint32_t best_ns;
} side[2] = {{.off = "", .best_ns = UINT32_MAX}, {.off = "filters", .best_ns = UINT32_MAX}};

static enum pt2box_status begin(struct side *s, const struct test_array *in, struct pt2box_error *e)
{
	enum pt2box_status st;

	if (!test_layered_begin(&s->world, s->off))
		return PT2BOX_INTERNAL;
	st = pt2box_open(s->world.broker.socket, &s->c, e);
	if (!st)
		st = pt2box_load_path(s->c, "tests/fixtures/mlp/model.pt2", NULL, &s->m, e);
	if (!st)
		st = pt2box_tensor_alloc(s->m, PT2BOX_FLOAT32, in->ndim, in->shape, &s->in, e);
	if (!st)
		memcpy(pt2box_tensor_get_info(s->in)->data, in->data, in->bytes);
	return st;
}

static enum pt2box_status measure(struct side *s, uint32_t *ns, size_t calls, struct pt2box_error *e)
{
	for (size_t i = 0; i < calls; i++) {
		struct pt2box_tensor *out = NULL;
		uint64_t began = now_ns();
		enum pt2box_status st = pt2box_run(s->m, &s->in, 1, NULL, &out, e);

		ns[i] = (uint32_t)(now_ns() - began);
		pt2box_tensor_free(out);
		if (st)
			return st;
	}
	qsort(ns, calls, sizeof(*ns), by_value);
	if (ns[calls / 2] < s->best_ns)
		s->best_ns = ns[calls / 2];
	return PT2BOX_OK;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 9;
	size_t calls = argc > 2 ? strtoul(argv[2], NULL, 10) : 20000;
	struct test_array *in = test_npz_first("tests/fixtures/mlp/in.npz");
	uint32_t *ns = calloc(calls ? calls : 1, sizeof(*ns));
	struct pt2box_error e = {.status = PT2BOX_OK};
	enum pt2box_status st = in && ns ? PT2BOX_OK : PT2BOX_INTERNAL;

	for (int i = 0; i < 2 && !st; i++)
		st = begin(&side[i], in, &e);
	for (int r = 0; r < rounds * 2 && !st; r++)
		st = measure(&side[r % 2], ns, calls, &e);
	if (st)
		fprintf(stderr, "filter_cost: %s: %s\n", pt2box_status_name(st), e.text);
	else
		printf("one call, MLP 4x64: %u ns with the filters, %u ns without: %+.2f %%\n", side[0].best_ns, side[1].best_ns,
		       100.0 * ((double)side[0].best_ns - side[1].best_ns) / side[1].best_ns);
	for (int i = 0; i < 2; i++) {
		pt2box_tensor_free(side[i].in);
		pt2box_unload(side[i].m);
		if (side[i].c)
			pt2box_close(side[i].c);
	}
	for (int i = 0; i < 2; i++)
		if (side[i].world.broker.pid)
			test_layered_end(&side[i].world);
	free(ns);
	free(in);
	return st != PT2BOX_OK;
}
