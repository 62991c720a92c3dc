/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box's side of `make bench`: a client like any other, built on the public header alone.
 *
 *	hot [-k CONSTANTS] [-b PACKAGE DTYPE:D0xD1..:RAWFILE] PACKAGE RUNNERS THREADS CLIENT_CPU WORKER_CPU DTYPE:D0xD1..:RAWFILE ...
 *
 * Starts a private broker, loads, runs once, prints "first", then obeys lines on standard input, each answered by a line:
 *	run N	median of N calls in ns
 *	ps	what runs, as JSON on one line
 *	tail MS U A B	calls for MS ms, of the model and of the one beside it (-b), each on a thread of its own, while the
 *		model's constants are replaced U times, by those of the files A and B in turn:
 *		"calls p50 p99" of the model and of the other in ns, then the median update in ns. With updates, the calls
 *		end with the last of them, and count only while one is under way
 * A CPU of -1 pins nothing. Processes started while this one is pinned to WORKER_CPU inherit that; then it moves.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "include/pt2box.h"

#define INPUTS_MAX 16

struct bench {
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

/* ---- runs while constants are replaced ---- */

#define SAMPLES_MAX 4000000

static struct {
	_Atomic bool stop, counts;
	uint64_t update_ns[64];
} tail;

struct sampler {
	pthread_t thread;
	struct bench *b;
	uint64_t *ns;
	size_t n;
};

static void *sample(void *data)
{
	struct sampler *s = data;

	while (!tail.stop) {
		bool counts = tail.counts;
		uint64_t begin = now_ns();

		run_once(s->b);
		if ((counts || tail.counts) && s->n < SAMPLES_MAX)
			s->ns[s->n++] = now_ns() - begin;
	}
	return NULL;
}

static void update(struct bench *b, const char *path)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (pt2box_load_constants_fd(b->model, fd, PT2BOX_CONSTANTS_FULL, &e))
		die(path, &e);
	close(fd);
}

static void sleep_ms(unsigned ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

static void update_times(struct bench *b, unsigned updates, const char *const files[2])
{
	for (unsigned i = 0; i < updates && i < 64; i++) {
		uint64_t begin = now_ns();

		tail.counts = true;
		update(b, files[i % 2]);
		tail.counts = false;
		tail.update_ns[i] = now_ns() - begin;
		sleep_ms(200);
	}
	qsort(tail.update_ns, updates, sizeof(tail.update_ns[0]), compare);
}

static void print_sampler(struct sampler *s)
{
	qsort(s->ns, s->n, sizeof(*s->ns), compare);
	printf("%zu %" PRIu64 " %" PRIu64 " ", s->n, s->n ? s->ns[s->n / 2] : 0, s->n ? s->ns[s->n * 99 / 100] : 0);
	free(s->ns);
}

static void run_tail(struct bench *b, struct bench *beside, unsigned ms, unsigned updates, const char *const files[2])
{
	struct sampler s[2] = {{.b = b}, {.b = beside}};
	const size_t n = beside->model ? 2 : 1;

	tail.stop = false;
	tail.counts = !updates;
	for (size_t i = 0; i < n; i++) {
		s[i].ns = calloc(SAMPLES_MAX, sizeof(*s[i].ns));
		if (!s[i].ns || pthread_create(&s[i].thread, NULL, sample, &s[i]))
			exit(1);
	}
	if (updates)
		update_times(b, updates, files);
	else
		sleep_ms(ms);
	tail.stop = true;
	for (size_t i = 0; i < n; i++)
		pthread_join(s[i].thread, NULL);
	for (size_t i = 0; i < 2; i++)
		print_sampler(&s[i]);
	printf("%" PRIu64 "\n", updates ? tail.update_ns[updates / 2] : 0);
}

static void print_ps(struct pt2box *box)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	char *json;

	if (pt2box_ps(box, &json, &e))
		die("ps", &e);
	puts(json);
	pt2box_free_text(json);
}

static void load(struct pt2box *box, struct bench *b, const char *package, const struct pt2box_load_options *opt)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (pt2box_load_path(box, package, opt, &b->model, &e))
		die(package, &e);
	b->n_out = pt2box_model_n_outputs(b->model);
	b->out = calloc(b->n_out + 1, sizeof(struct pt2box_tensor *));
	if (!b->out)
		exit(1);
}

static void unload(struct bench *b)
{
	for (size_t i = 0; i < b->n_in; i++)
		pt2box_tensor_free(b->in[i]);
	free(b->out);
	pt2box_unload(b->model);
}

static void obey(struct pt2box *box, struct bench *b, struct bench *beside)
{
	char what[16], a_path[1024], b_path[1024];
	unsigned ms, updates;
	size_t n;

	while (scanf("%15s", what) == 1) {
		if (strcmp(what, "ps") == 0)
			print_ps(box);
		else if (strcmp(what, "run") == 0 && scanf("%zu", &n) == 1)
			run_block(b, n);
		else if (strcmp(what, "tail") == 0 && scanf("%u %u %1023s %1023s", &ms, &updates, a_path, b_path) == 4)
			run_tail(b, beside, ms, updates, (const char *const[]){a_path, b_path});
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT, plain = opt;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct bench b = {.model = NULL}, beside = {.model = NULL};
	const char *other = NULL;
	struct pt2box *box;
	int c;

	while ((c = getopt(argc, argv, "+k:b:")) != -1) {
		if (c == 'k')
			opt.constants_fd = open(optarg, O_RDONLY | O_CLOEXEC);
		else if (c == 'b')
			other = optarg;
		else
			return 2;
	}
	argc -= optind + (other != NULL);
	argv += optind + (other != NULL);
	if (argc < 5 || argc - 5 > INPUTS_MAX)
		return 2;
	opt.runners = (uint32_t)atoi(argv[1]);
	opt.threads = (uint32_t)atoi(argv[2]);
	pin(atoi(argv[4]));
	if (pt2box_open(NULL, &box, &e))
		die(argv[0], &e);
	load(box, &b, argv[0], &opt);
	if (other) {
		load(box, &beside, other, &plain);
		beside.in[beside.n_in++] = read_tensor(&beside, argv[-1]);
	}
	pin(atoi(argv[3]));
	for (int i = 5; i < argc; i++)
		b.in[b.n_in++] = read_tensor(&b, argv[i]);
	run_once(&b);
	puts("first");
	fflush(stdout);
	obey(box, &b, &beside);
	unload(&beside);
	unload(&b);
	pt2box_close(box);
	return 0;
}
