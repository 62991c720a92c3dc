/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box bench: latency, throughput, start, memory. Clients are threads of this process that share one connection and one
 * model, each with its own input tensors; every run is timed where its caller would time it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/json.h"

#define RUNS_DEFAULT 2000
#define NS_MIN 1000000000ull	/* without -n: at least so long */
#define NS_MAX 10000000000ull	/* without -n: no longer, if some runs were made */
#define RUNS_MIN 10
#define RUNS_KEPT (64u << 20)	/* of one client, so that memory is bounded */
#define WARM_UP_NS 200000000ull /* clocks, caches, the lane's own learning */
#define WARM_UP_RUNS 1000

struct bench {
	const struct cmd_options *o;
	struct pt2box *c;
	struct pt2box_model *m;
	struct cmd_inputs in;
	uint64_t opened_ns, first_ns, begin_ns, end_ns;
	_Atomic uint64_t started; /* measured runs, of all clients */
	_Atomic bool stop;	  /* a client failed */
};

struct client {
	struct bench *b;
	pthread_t thread;
	struct cmd_tensors t;
	struct pt2box_tensor **out;
	uint64_t *ns;
	size_t n, room;
	pb_status st;
	struct pt2box_error err;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static pb_status run_once(struct client *k)
{
	pb_status st = pt2box_run(k->b->m, k->t.t, k->t.n, NULL, k->out, &k->err);

	for (size_t i = 0; !st && i < pt2box_model_n_outputs(k->b->m); i++) {
		pt2box_tensor_free(k->out[i]);
		k->out[i] = NULL;
	}
	return st;
}

static bool more(struct bench *b)
{
	uint64_t n = atomic_fetch_add_explicit(&b->started, 1, memory_order_relaxed), spent;

	if (b->o->runs)
		return n < b->o->runs;
	spent = now_ns() - b->begin_ns;
	if (spent > NS_MAX)
		return n < RUNS_MIN;
	return n < RUNS_DEFAULT || spent < NS_MIN;
}

static bool keep(struct client *k, uint64_t ns)
{
	if (k->n == k->room) {
		size_t room = k->room ? k->room * 2 : 4096;
		uint64_t *p = room <= RUNS_KEPT ? reallocarray(k->ns, room, sizeof(*p)) : NULL;

		if (!p)
			return false;
		k->ns = p;
		k->room = room;
	}
	k->ns[k->n++] = ns;
	return true;
}

static void *client_main(void *arg)
{
	struct client *k = arg;
	uint64_t began;

	while (!k->st && !atomic_load_explicit(&k->b->stop, memory_order_relaxed) && more(k->b)) {
		began = now_ns();
		k->st = run_once(k);
		if (!k->st && !keep(k, now_ns() - began))
			k->st = pb_error_set(&k->err, PT2BOX_NO_MEMORY, "no memory for more measurements");
	}
	if (k->st)
		atomic_store(&k->b->stop, true);
	return NULL;
}

static pb_status client_init(struct client *k, struct bench *b)
{
	k->b = b;
	k->out = calloc(pt2box_model_n_outputs(b->m) + 1, sizeof(*k->out));
	if (!k->out)
		return pb_error_set(&k->err, PT2BOX_NO_MEMORY, "out of memory");
	return cmd_inputs_read(&b->in, b->m, &k->t, &k->err);
}

static void clients_free(struct client *k, uint32_t n)
{
	for (uint32_t i = 0; k && i < n; i++) {
		cmd_tensors_deinit(&k[i].t);
		free(k[i].out);
		free(k[i].ns);
	}
	free(k);
}

static pb_status warm_up(struct client *k)
{
	uint64_t until = now_ns() + WARM_UP_NS;
	pb_status st = PT2BOX_OK;

	for (int i = 0; i < WARM_UP_RUNS && !st && now_ns() < until; i++)
		st = run_once(k);
	return st;
}

static pb_status measure(struct bench *b, struct client *k, struct pt2box_error *err)
{
	uint32_t n = b->o->clients, started = 0;
	pb_status st = PT2BOX_OK;

	cmd_progress_start("measuring");
	b->begin_ns = now_ns();
	for (; started < n && !st; started++) {
		if (pthread_create(&k[started].thread, NULL, client_main, &k[started]) != 0) {
			st = pb_error_set(err, PT2BOX_SYSTEM, "a thread cannot be started");
			atomic_store(&b->stop, true);
			break;
		}
	}
	for (uint32_t i = 0; i < started; i++) {
		pthread_join(k[i].thread, NULL);
		if (k[i].st && !st) {
			st = k[i].st;
			*err = k[i].err;
		}
	}
	b->end_ns = now_ns();
	cmd_progress_stop();
	return st;
}

/* ---- figures ---- */

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The smallest that is not exceeded by @per_mille of all. */
static double percentile_us(const uint64_t *sorted, size_t n, size_t per_mille)
{
	size_t at = (n * per_mille + 999) / 1000;

	return (double)sorted[at ? at - 1 : 0] / 1e3;
}

/* Mean over the model's workers; null where the kernel does not let us look. */
static json_t *worker_mean(const json_t *model, const char *key)
{
	json_t *workers = json_object_get(model, "workers"), *w;
	int64_t sum = 0, n = 0;
	size_t i;

	json_array_foreach(workers, i, w)
	{
		cmd_memory_fill(w);
		if (cmd_json_int(w, key) >= 0) {
			sum += cmd_json_int(w, key);
			n++;
		}
	}
	return n ? json_integer(sum / n) : json_null();
}

/* Our model among those of this user: none other was ready after the same number of microseconds. */
static void add_memory(struct bench *b, json_t *o)
{
	json_t *ps = NULL, *self = NULL, *found = NULL, *m;
	char *text = NULL;
	size_t i;

	if (pt2box_ps(b->c, &text, NULL) == PT2BOX_OK)
		(void)!cmd_json_take(text, &ps, NULL);
	if (pt2box_model_describe(b->m, &text, NULL) == PT2BOX_OK)
		(void)!cmd_json_take(text, &self, NULL);
	json_array_foreach(json_object_get(ps, "models"), i, m)
		if (cmd_json_int(m, "start_us") == cmd_json_int(self, "start_us"))
			found = m;
	json_object_set_new(o, "worker_private_bytes", worker_mean(found, "private_bytes"));
	json_object_set_new(o, "worker_pss_bytes", worker_mean(found, "pss_bytes"));
	json_decref(ps);
	json_decref(self);
}

static json_t *figures(struct bench *b, const struct client *k)
{
	json_t *o = json_object();
	uint64_t *all;
	size_t n = 0;

	for (uint32_t i = 0; i < b->o->clients; i++)
		n += k[i].n;
	all = calloc(n + 1, sizeof(*all));
	n = 0;
	for (uint32_t i = 0; all && i < b->o->clients; i++) {
		memcpy(all + n, k[i].ns, k[i].n * sizeof(*all));
		n += k[i].n;
	}
	if (all)
		qsort(all, n, sizeof(*all), by_size);
	json_object_set_new(o, "package", json_string(b->o->package));
	json_object_set_new(o, "n", json_integer((json_int_t)n));
	json_object_set_new(o, "clients", json_integer(b->o->clients));
	json_object_set_new(o, "runners", json_integer(b->o->runners));
	json_object_set_new(o, "p50_us", json_real(all ? percentile_us(all, n, 500) : 0));
	json_object_set_new(o, "p90_us", json_real(all ? percentile_us(all, n, 900) : 0));
	json_object_set_new(o, "p99_us", json_real(all ? percentile_us(all, n, 990) : 0));
	json_object_set_new(o, "p999_us", json_real(all ? percentile_us(all, n, 999) : 0));
	json_object_set_new(o, "runs_per_s", json_real((double)n / ((double)(b->end_ns - b->begin_ns) / 1e9)));
	json_object_set_new(o, "start_ms", json_real((double)(b->first_ns - b->opened_ns) / 1e6));
	add_memory(b, o);
	free(all);
	return o;
}

static void show(const json_t *o)
{
	char a[24], p[24];

#define REAL(key) json_real_value(json_object_get(o, key))
	printf("%-12s", "package");
	cmd_show_text(stdout, cmd_json_text(o, "package"));
	printf("\n%-12s%lld; clients %lld, workers %lld\n", "runs", (long long)cmd_json_int(o, "n"),
	       (long long)cmd_json_int(o, "clients"), (long long)cmd_json_int(o, "runners"));
	printf("%-12sp50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f us\n", "latency", REAL("p50_us"), REAL("p90_us"),
	       REAL("p99_us"), REAL("p999_us"));
	printf("%-12s%.0f runs/s\n", "throughput", REAL("runs_per_s"));
	printf("%-12s%.1f ms from nothing to the first result\n", "start", REAL("start_ms"));
	if (cmd_json_int(o, "worker_pss_bytes") < 0)
		printf("%-12snot readable: workers are closed to all but root\n", "memory");
	else
		printf("%-12s%s private, %s with its share of what is shared, each worker\n", "memory",
		       cmd_show_bytes(cmd_json_int(o, "worker_private_bytes"), a),
		       cmd_show_bytes(cmd_json_int(o, "worker_pss_bytes"), p));
#undef REAL
}

static pb_status bench(struct bench *b, struct client *k, struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	k[0].b = b; /* there is one at least */
	for (uint32_t i = 0; i < b->o->clients && !st; i++) {
		st = client_init(&k[i], b);
		/* The first one is there to give the first result. */
		if (!st && i == 0)
			st = run_once(&k[0]);
		if (i == 0)
			b->first_ns = now_ns();
		if (st)
			*err = k[i].err;
	}
	if (!st) {
		st = warm_up(&k[0]);
		*err = k[0].err;
	}
	return st ? st : measure(b, k, err);
}

pb_status cmd_bench(const struct cmd_options *o, struct pt2box_error *err)
{
	struct bench b = {.o = o};
	struct client *k = calloc(o->clients, sizeof(*k));
	pb_status st = k ? cmd_inputs_open(o, &b.in, err) : pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	json_t *result;

	b.opened_ns = now_ns();
	if (!st)
		st = cmd_load(o, &b.c, &b.m, err);
	if (!st)
		st = bench(&b, k, err);
	if (st == PT2BOX_BAD_TENSOR && b.m)
		cmd_inputs_explain(&b.in, err);
	if (!st) {
		result = figures(&b, k);
		if (o->json)
			cmd_json_print(result);
		else
			show(result);
		json_decref(result);
	}
	clients_free(k, o->clients);
	cmd_inputs_deinit(&b.in);
	pt2box_unload(b.m);
	pt2box_close(b.c);
	return st;
}
