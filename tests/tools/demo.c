/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `make demo`: real packages on a private broker, then hostile ones, then a real one again.
 *
 *	demo BUILD
 *
 * Everything is shown through the public API; exits 1 if anything is not as it should be.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/array.h"
#include "include/pt2box.h"
#include "tests/lib/package.h"

#define FIXTURES "tests/fixtures/"
#define TENSORS_MAX 8
#define RTOL 1e-4
#define ATOL 1e-5

struct demo {
	struct pt2box *box;
	const char *build;
	int wrong;
};

/* A package with its input and eager PyTorch's answer. */
struct example {
	const char *what, *name;
	struct pt2box_model *model;
	struct pt2box_tensor *in[TENSORS_MAX];
	size_t n_in;
	float *want;
	size_t n_want;
};

static _Noreturn void die(const char *what, const struct pt2box_error *e)
{
	fprintf(stderr, "demo: %s: %s: %s\n", what, pt2box_status_name(e->status), e->text);
	exit(1);
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* ---- layers ---- */

static void print_layers(json_t *list)
{
	size_t i;
	json_t *row;

	json_array_foreach(list, i, row)
		printf("    %-32s %-4s %s\n", json_string_value(json_object_get(row, "name")),
		       json_string_value(json_object_get(row, "state")),
		       json_string_value(json_object_get(row, "detail")));
}

static void show_layers(struct demo *d)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	char *text;
	json_t *o, *models;

	if (pt2box_doctor(d->box, &text, &e))
		die("doctor", &e);
	o = json_loads(text, 0, NULL);
	models = json_object_get(o, "models");
	printf("\nLayers in force around this model:\n");
	print_layers(json_object_get(json_array_get(models, 0), "layers"));
	if (json_array_size(models) == 0)
		d->wrong++;
	json_decref(o);
	pt2box_free_text(text);
}

static long long number(json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? json_integer_value(v) : -1;
}

static void show_memory(struct demo *d)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	char *text;
	json_t *o, *worker;
	long long pss;

	if (pt2box_ps(d->box, &text, &e))
		die("ps", &e);
	o = json_loads(text, 0, NULL);
	worker = json_array_get(json_object_get(json_array_get(json_object_get(o, "models"), 0), "workers"), 0);
	pss = number(worker, "pss_bytes");
	if (pss >= 0)
		printf("  memory: worker %.1f MB (PSS), %.1f MB of it its own; shared memories %.1f MB\n",
		       (double)pss / 1e6, (double)number(worker, "private_bytes") / 1e6,
		       (double)number(json_array_get(json_object_get(o, "models"), 0), "memfd_bytes") / 1e6);
	else
		printf("  memory: shared memories %.1f MB (a worker's own can be read by root)\n",
		       (double)number(json_array_get(json_object_get(o, "models"), 0), "memfd_bytes") / 1e6);
	json_decref(o);
	pt2box_free_text(text);
}

/* ---- real packages ---- */

static void read_inputs(struct example *x, const char *path)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_array_file *f;

	if (pb_array_file_open(path, &f, &e))
		die(path, &e);
	for (x->n_in = 0; x->n_in < pb_array_file_count(f) && x->n_in < TENSORS_MAX; x->n_in++) {
		const struct pb_array *a = pb_array_file_get(f, x->n_in);
		struct pt2box_tensor **t = &x->in[x->n_in];

		if (pt2box_tensor_alloc(x->model, a->dtype, a->ndim, a->sizes, t, &e) ||
		    pb_array_file_read(f, x->n_in, pt2box_tensor_get_info(*t)->data, &e))
			die(path, &e);
	}
	pb_array_file_free(f);
}

static void read_answer(struct example *x, const char *path)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_array_file *f;
	const struct pb_array *a;

	if (pb_array_file_open(path, &f, &e))
		die(path, &e);
	a = pb_array_file_get(f, 0);
	x->want = malloc(a->bytes);
	x->n_want = a->bytes / sizeof(float);
	if (!x->want || pb_array_file_read(f, 0, x->want, &e))
		die(path, &e);
	pb_array_file_free(f);
}

static void load(struct demo *d, struct example *x)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	char path[256];
	double begin = now_ms();

	snprintf(path, sizeof(path), FIXTURES "%s/model.pt2", x->name);
	if (pt2box_load_path(d->box, path, NULL, &x->model, &e))
		die(path, &e);
	printf("\n%s: %s\n  loaded and confined in %.1f ms\n", x->what, path, now_ms() - begin);
	snprintf(path, sizeof(path), FIXTURES "%s/in.npz", x->name);
	read_inputs(x, path);
	snprintf(path, sizeof(path), FIXTURES "%s/out.npz", x->name);
	read_answer(x, path);
}

/* Largest difference to eager PyTorch, in units of what is tolerated. */
static double difference(const struct example *x, const struct pt2box_tensor_info *o)
{
	double worst = (size_t)o->numel == x->n_want ? 0 : INFINITY;
	const float *got = o->data;

	for (size_t i = 0; i < x->n_want && worst < INFINITY; i++) {
		double diff = fabs((double)got[i] - x->want[i]) / (ATOL + RTOL * fabs((double)x->want[i]));

		worst = diff > worst || isnan(diff) ? diff : worst;
	}
	return worst;
}

static void print_values(const char *who, const float *v, size_t n)
{
	printf("  %-16s", who);
	for (size_t i = 0; i < n && i < 5; i++)
		printf(" %+.6f", (double)v[i]);
	printf(n > 5 ? " ...\n" : "\n");
}

static void free_outputs(struct pt2box_tensor **out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pt2box_tensor_free(out[i]);
}

/* One run, compared; @verbose prints both answers. */
static bool answer(struct demo *d, struct example *x, bool verbose)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box_tensor *out[TENSORS_MAX];
	const struct pt2box_tensor_info *o;
	double diff;

	if (pt2box_run(x->model, x->in, x->n_in, NULL, out, &e))
		die(x->name, &e);
	o = pt2box_tensor_get_info(out[0]);
	diff = difference(x, o);
	if (verbose) {
		print_values("pt2box:", o->data, (size_t)o->numel);
		print_values("eager PyTorch:", x->want, x->n_want);
	}
	if (!(diff <= 1.0)) {
		printf("  DIFFERS: %g times what rtol 1e-4, atol 1e-5 allow\n", diff);
		d->wrong++;
	} else if (verbose) {
		printf("  all %zu values within %.2f of rtol 1e-4, atol 1e-5\n", x->n_want, diff);
	}
	free_outputs(out, pt2box_model_n_outputs(x->model));
	return diff <= 1.0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void show_latency(struct example *x)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box_tensor *out[TENSORS_MAX];
	double t[100];

	for (int i = 0; i < 100; i++) {
		double begin = now_ms();

		if (pt2box_run(x->model, x->in, x->n_in, NULL, out, &e))
			die(x->name, &e);
		free_outputs(out, pt2box_model_n_outputs(x->model));
		t[i] = now_ms() - begin;
	}
	qsort(t, 100, sizeof(t[0]), compare);
	printf("  latency of a run: p50 %.3f ms, p90 %.3f ms\n", t[50], t[90]);
}

static void unload(struct example *x)
{
	for (size_t i = 0; i < x->n_in; i++)
		pt2box_tensor_free(x->in[i]);
	pt2box_unload(x->model);
	free(x->want);
}

/* ---- hostile packages ---- */

static void run_hostile(struct demo *d, const char *what, const char *source, enum pt2box_status want)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box_tensor *in = NULL, *out[1];
	struct pt2box_model *m = NULL;
	char so[512], package[] = "/tmp/pt2box-demo-XXXXXX";
	int64_t n = 16;
	int fd = mkstemp(package);
	enum pt2box_status st;

	snprintf(so, sizeof(so), "%s/tests/hostile/%s.3.so", d->build, source);
	if (fd < 0 || test_package_write(package, &(struct test_package){.so_path = so})) {
		fprintf(stderr, "demo: cannot make a hostile package\n");
		exit(1);
	}
	close(fd);
	opt.explain = 1;
	st = pt2box_load_path(d->box, package, &opt, &m, &e);
	unlink(package);
	if (!st)
		st = pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, &n, &in, &e);
	if (!st) {
		float *data = pt2box_tensor_get_info(in)->data;

		for (int i = 0; i < n; i++)
			data[i] = 666.0f; /* what the hostile models wait for */
		st = pt2box_run(m, &in, 1, NULL, out, &e);
		if (!st)
			pt2box_tensor_free(out[0]);
	}
	printf("\n%s (tests/hostile/%s.c):\n  %s: %s\n", what, source, pt2box_status_name(st), e.text);
	if (st != want) {
		printf("  NOT AS EXPECTED: %s\n", pt2box_status_name(want));
		d->wrong++;
	}
	pt2box_tensor_free(in);
	pt2box_unload(m);
}

int main(int argc, char **argv)
{
	struct example image = {.what = "An image model, ResNet-18 (narrow)", .name = "resnet18"};
	struct example language = {.what = "A language model, GPT-2 (small)", .name = "gpt2"};
	struct example *both[] = {&image, &language};
	struct demo d = {.build = argc > 1 ? argv[1] : "build"};
	struct pt2box_error e = {.status = PT2BOX_OK};

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (pt2box_open(NULL, &d.box, &e))
		die("broker", &e);
	printf("A private broker runs. No libtorch is loaded anywhere; the packages were compiled by PyTorch 2.13.0.\n");
	for (size_t i = 0; i < 2; i++) {
		load(&d, both[i]);
		answer(&d, both[i], true);
		show_latency(both[i]);
		show_memory(&d);
		if (i == 0)
			show_layers(&d);
	}
	run_hostile(&d, "A package that crashes", "segfault", PT2BOX_MODEL_CRASHED);
	run_hostile(&d, "A package that opens a network connection", "socket_tcp", PT2BOX_MODEL_KILLED);
	run_hostile(&d, "A package that starts a program", "execve", PT2BOX_MODEL_KILLED);
	printf("\nThe next runs of the others, on the same broker:\n");
	for (size_t i = 0; i < 2; i++)
		printf("  %s: %s\n", both[i]->name, answer(&d, both[i], false) ? "served, the right answer" : "WRONG");
	unload(&image);
	unload(&language);
	pt2box_close(d.box);
	printf("\n%s\n", d.wrong ? "Something above is not as it should be." : "All as it should be.");
	return d.wrong != 0;
}
