/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box's side of `make bench`: a client like any other, built on the public header alone.
 *
 *	hot PACKAGE RUNNERS THREADS CLIENT_CPU WORKER_CPU DTYPE:D0xD1..:RAWFILE ...
 *
 * Starts a private broker, loads, runs once, prints "first", then obeys lines on standard input, each answered by a line:
 *	run N	median of N calls in ns
 *	ps	what runs, as JSON on one line
 * A CPU of -1 pins nothing. Processes started while this one is pinned to WORKER_CPU inherit that; then it moves.
 */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/pt2box.h"

#define INPUTS_MAX 16

struct bench {
	struct pt2box *box;
	struct pt2box_model *model;
	struct pt2box_tensor *in[INPUTS_MAX];
	struct pt2box_tensor **out;
	size_t n_in, n_out;
};

static _Noreturn void die(const char *what, const struct pt2box_error *e)
{
	fprintf(stderr, "hot: %s: %s: %s\n", what, pt2box_status_name(e->status), e->text);
	exit(1);
}

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	(void)!sched_setaffinity(0, sizeof(set), &set);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static struct pt2box_tensor *read_tensor(struct bench *b, char *spec)
{
	char *dtype = strtok(spec, ":"), *dims = strtok(NULL, ":"), *path = strtok(NULL, ""), *save = NULL;
	int64_t sizes[PT2BOX_MAX_DIMS];
	const struct pt2box_tensor_info *info;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box_tensor *t;
	int32_t ndim = 0;
	FILE *f;

	for (char *d = strtok_r(dims, "x", &save); d && ndim < PT2BOX_MAX_DIMS; d = strtok_r(NULL, "x", &save))
		sizes[ndim++] = atoll(d);
	if (pt2box_tensor_alloc(b->model, pt2box_dtype_from_name(dtype), ndim, sizes, &t, &e))
		die("input", &e);
	info = pt2box_tensor_get_info(t);
	f = fopen(path, "rb");
	if (!f || fread(info->data, pt2box_dtype_size(info->dtype), (size_t)info->numel, f) != (size_t)info->numel) {
		fprintf(stderr, "hot: cannot read %s\n", path);
		exit(1);
	}
	fclose(f);
	return t;
}

static void run_once(struct bench *b)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (pt2box_run(b->model, b->in, b->n_in, NULL, b->out, &e))
		die("run", &e);
	for (size_t i = 0; i < b->n_out; i++)
		pt2box_tensor_free(b->out[i]);
}

static void run_block(struct bench *b, size_t n)
{
	uint64_t *t = calloc(n ? n : 1, sizeof(*t));

	for (size_t i = 0; i < n; i++) {
		uint64_t begin = now_ns();

		run_once(b);
		t[i] = now_ns() - begin;
	}
	qsort(t, n, sizeof(*t), compare);
	printf("%" PRIu64 "\n", n ? t[n / 2] : 0);
	free(t);
}

static void print_ps(struct bench *b)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	char *json;

	if (pt2box_ps(b->box, &json, &e))
		die("ps", &e);
	puts(json);
	pt2box_free_text(json);
}

int main(int argc, char **argv)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct bench b = {.box = NULL};
	char what[16];
	size_t n;

	if (argc < 6 || argc - 6 > INPUTS_MAX)
		return 2;
	opt.runners = (uint32_t)atoi(argv[2]);
	opt.threads = (uint32_t)atoi(argv[3]);
	pin(atoi(argv[5]));
	if (pt2box_open(NULL, &b.box, &e) || pt2box_load_path(b.box, argv[1], &opt, &b.model, &e))
		die(argv[1], &e);
	pin(atoi(argv[4]));
	for (int i = 6; i < argc; i++)
		b.in[b.n_in++] = read_tensor(&b, argv[i]);
	b.n_out = pt2box_model_n_outputs(b.model);
	b.out = calloc(b.n_out + 1, sizeof(struct pt2box_tensor *));
	if (!b.out)
		return 1;
	run_once(&b);
	puts("first");
	fflush(stdout);
	while (scanf("%15s", what) == 1) {
		if (strcmp(what, "ps") == 0)
			print_ps(&b);
		else if (scanf("%zu", &n) == 1)
			run_block(&b, n);
		fflush(stdout);
	}
	for (size_t i = 0; i < b.n_in; i++)
		pt2box_tensor_free(b.in[i]);
	free(b.out);
	pt2box_unload(b.model);
	pt2box_close(b.box);
	return 0;
}
