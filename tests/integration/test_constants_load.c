/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Updates while runs flow: each run sees wholly one generation of constants, none older than the
 * last that had been given when it began; nothing hangs or is left behind when processes die in the
 * middle of updates.
 *
 * Constants and inputs are small integers, so that results are exact in whatever order a kernel
 * adds up, and the last bias is the generation's number: an output says by itself which generation
 * it is of, and each of its elements has to say the same.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"

#define IN 64
#define HIDDEN 256
#define OUT 10
#define ROWS 4
#define RUNNERS 4
#define RUNS (CHECK_SANITIZED ? 2000 : 10000)
#define UPDATES 200

/* One generation of the MLP's constants. Odd and even ones have quite other weights. */
struct generation {
	float w1[HIDDEN * IN], b1[HIDDEN], w2[OUT * HIDDEN], b2[OUT];
};

static struct generation parity[2];
static float input[ROWS * IN], base[2][ROWS * OUT]; /* what comes out with b2 zero */

static float small(uint64_t *seed)
{
	return (float)(check_rand(seed) % 7) - 3;
}

static void compute(const struct generation *g, float *ret)
{
	for (int r = 0; r < ROWS; r++) {
		float h[HIDDEN];

		for (int i = 0; i < HIDDEN; i++) {
			h[i] = g->b1[i];
			for (int k = 0; k < IN; k++)
				h[i] += g->w1[i * IN + k] * input[r * IN + k];
			h[i] = h[i] > 0 ? h[i] : 0;
		}
		for (int o = 0; o < OUT; o++) {
			ret[r * OUT + o] = 0;
			for (int i = 0; i < HIDDEN; i++)
				ret[r * OUT + o] += g->w2[o * HIDDEN + i] * h[i];
		}
	}
}

static void make_generations(void)
{
	uint64_t seed = 4;

	for (int i = 0; i < ROWS * IN; i++)
		input[i] = small(&seed);
	for (int p = 0; p < 2; p++) {
		for (int i = 0; i < HIDDEN * IN; i++)
			parity[p].w1[i] = small(&seed);
		for (int i = 0; i < HIDDEN; i++)
			parity[p].b1[i] = small(&seed);
		for (int i = 0; i < OUT * HIDDEN; i++)
			parity[p].w2[i] = small(&seed);
		compute(&parity[p], base[p]);
	}
}

/* The generation that an output is of; -1: of none, wholly. */
static long generation_of(const float *out)
{
	for (int p = 0; p < 2; p++) {
		const float n = out[0] - base[p][0];
		bool all = n >= 0 && n == (float)(long)n && (long)n % 2 == p;

		for (int i = 0; i < ROWS * OUT && all; i++)
			all = out[i] - base[p][i] == n;
		if (all)
			return (long)n;
	}
	return -1;
}

static enum pt2box_status update(struct pt2box_model *m, long number, uint32_t flags,
				 struct pt2box_error *err)
{
	static const struct {
		const char *name;
		int32_t ndim;
		int64_t sizes[2];
	} form[4] = {{"fc1.weight", 2, {HIDDEN, IN}},
		     {"fc1.bias", 1, {HIDDEN}},
		     {"fc2.weight", 2, {OUT, HIDDEN}},
		     {"fc2.bias", 1, {OUT}}};
	struct generation *g = &parity[number % 2];
	float last[OUT], *data[4] = {g->w1, g->b1, g->w2, last};
	struct pt2box_constant list[4];
	enum pt2box_status st = PT2BOX_OK;
	size_t n = 0;

	for (int i = 0; i < OUT; i++)
		last[i] = (float)number;
	for (; n < 4 && !st; n++) {
		list[n].name = form[n].name;
		st = pt2box_tensor_lend(PT2BOX_FLOAT32, form[n].ndim, form[n].sizes, NULL, data[n],
					&list[n].tensor, err);
	}
	if (!st)
		st = pt2box_load_constants(m, list, n, flags | PT2BOX_CONSTANTS_FULL, err);
	while (n)
		pt2box_tensor_free(list[--n].tensor);
	return st;
}

/* ---- threads that run ---- */

static atomic_long begun, returned; /* updates */
static atomic_bool seen[1024];	    /* generations that a run has seen */
static atomic_long newest;	    /* of them */

static void raise_to(atomic_long *to, long v)
{
	long now = *to;

	while (now < v && !atomic_compare_exchange_weak(to, &now, v))
		;
}

struct runner {
	pthread_t thread;
	struct pt2box_model *m;
	long runs;	   /* at least so many */
	atomic_bool *more; /* and as long as this is set */
	bool deaths;	   /* runs may fail as their worker dies */
	long done, last, failed, generations;
	char why[600];
};

static bool is_death(enum pt2box_status st)
{
	/* MODEL_PROTOCOL: it was seen that the template does not listen, not yet why. */
	return st == PT2BOX_MODEL_CRASHED || st == PT2BOX_MODEL_KILLED ||
	       st == PT2BOX_MODEL_EXITED || st == PT2BOX_MODEL_PROTOCOL;
}

/* One run; false: it was wrong, and why is said. */
static bool run_once(struct runner *r, struct pt2box_tensor *t)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box_tensor *out = NULL;
	const long shown = newest, from = returned > shown
						  ? returned
						  : shown; /* what any thread has seen, all see */
	enum pt2box_status st = pt2box_run(r->m, &t, 1, NULL, &out, &e);
	const long to = begun;
	long g;

	if (st) {
		r->failed++;
		snprintf(r->why, sizeof(r->why), "run %ld: %s: %s", r->done, pt2box_status_name(st),
			 e.text);
		return r->deaths && is_death(st);
	}
	g = generation_of(pt2box_tensor_get_info(out)->data);
	pt2box_tensor_free(out);
	if (g < from || g > to || g < r->last) {
		snprintf(r->why, sizeof(r->why),
			 "run %ld saw generation %ld (-1: a mixture); returned or seen before it: "
			 "%ld, begun when it had ended: "
			 "%ld; last seen %ld",
			 r->done, g, from, to, r->last);
		return false;
	}
	seen[g] = true;
	raise_to(&newest, g);
	r->generations += g != r->last;
	r->last = g;
	return true;
}

static void *run_thread(void *data)
{
	static const int64_t sizes[2] = {ROWS, IN};
	struct runner *r = data;
	struct pt2box_tensor *t;
	struct pt2box_error e;

	if (pt2box_tensor_alloc(r->m, PT2BOX_FLOAT32, 2, sizes, &t, &e))
		return strcpy(r->why, "no tensor");
	memcpy(pt2box_tensor_get_info(t)->data, input, sizeof(input));
	for (; r->done < r->runs || (r->more && *r->more); r->done++)
		if (!run_once(r, t)) {
			pt2box_tensor_free(t);
			return r->why;
		}
	pt2box_tensor_free(t);
	return NULL;
}

static void start_runners(struct runner *r, int n, struct pt2box_model *m, long runs,
			  atomic_bool *more, bool deaths)
{
	for (int i = 0; i < n; i++) {
		r[i] = (struct runner){
			.m = m, .runs = runs, .more = more, .deaths = deaths, .last = returned};
		assert_int_equal(pthread_create(&r[i].thread, NULL, run_thread, &r[i]), 0);
	}
}

/* Returns all runs; fails the test on the first that was wrong. */
static long join_runners(struct runner *r, int n)
{
	const char *why = NULL;
	long runs = 0;

	for (int i = 0; i < n; i++) {
		void *bad;

		pthread_join(r[i].thread, &bad);
		why = bad ? bad : why;
		runs += r[i].done;
	}
	if (why)
		fail_msg("%s", why);
	return runs;
}

static void next_update(struct pt2box_model *m, long number)
{
	begun = number;
	OK(update(m, number, 0, &test_error));
	returned = number;
}

/* ---- the tests ---- */

static void test_update_under_load(void **state)
{
	struct runner r[4];
	atomic_bool more = true;
	struct loaded l;
	long began, runs, generations = 0;

	(void)state;
	loaded_open(&l, NULL, "mlp", RUNNERS);
	begun = returned = newest = 0;
	next_update(l.m, 2);
	began = test_now_ms();
	start_runners(r, 4, l.m, RUNS / 4, &more, false);
	for (long u = 3; u < UPDATES + 3; u++)
		next_update(l.m, u);
	more = false;
	runs = join_runners(r, 4);
	for (int i = 0; i < 4; i++)
		generations += r[i].generations;
	fprintf(stderr, "%ld runs, %d updates in %ld ms; threads saw %ld generations each\n", runs,
		UPDATES, test_now_ms() - began, generations / 4);
	assert_true(runs >= RUNS);
	/* Else the test would say nothing. */
	assert_true(generations / 4 > UPDATES / 4);
	assert_true(CHECK_SANITIZED || test_now_ms() - began < 20000);
	loaded_close(&l);
}

/* The same by the inactive buffer and an exchange. */
static void test_swap_under_load(void **state)
{
	struct runner r[4];
	atomic_bool more = true;
	struct loaded l;

	(void)state;
	loaded_open(&l, NULL, "mlp", RUNNERS);
	begun = returned = newest = 0;
	next_update(l.m, 2);
	start_runners(r, 4, l.m, 0, &more, false);
	for (long u = 3; u < 53; u++) {
		OK(update(l.m, u, PT2BOX_CONSTANTS_INACTIVE, &test_error));
		begun = u;
		OK(pt2box_swap_constants(l.m, &test_error));
		returned = u;
		if (u % 5 == 0)
			OK(pt2box_free_inactive_constants(l.m, &test_error));
	}
	more = false;
	join_runners(r, 4);
	loaded_close(&l);
}

/* Changes of several threads take turns. */
struct updater {
	pthread_t thread;
	struct pt2box_model *m;
	long number;
	enum pt2box_status st;
	struct pt2box_error e;
};

static void *update_thread(void *data)
{
	struct updater *u = data;

	for (int i = 0; i < 10 && !u->st; i++)
		u->st = update(u->m, u->number, 0, &u->e);
	return NULL;
}

static void test_concurrent_updates(void **state)
{
	static struct updater u[4];
	struct runner r[2];
	struct loaded l;

	(void)state;
	loaded_open(&l, NULL, "mlp", 2);
	begun = returned = newest = 0;
	OK(update(l.m, 0, 0, &test_error));
	for (int i = 0; i < 4; i++) {
		u[i] = (struct updater){.m = l.m, .number = i};
		assert_int_equal(pthread_create(&u[i].thread, NULL, update_thread, &u[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(u[i].thread, NULL);
		if (u[i].st)
			fail_msg("%s: %s", pt2box_status_name(u[i].st), u[i].e.text);
	}
	/* One of them was the last: all runs agree on it. */
	begun = 3;
	start_runners(r, 2, l.m, 50, NULL, false);
	join_runners(r, 2);
	assert_int_equal(r[0].last, r[1].last);
	loaded_close(&l);
}

/* ---- what is left ---- */

/* Descriptors of a process; -1: not readable. */
static int count_fds(pid_t pid)
{
	char path[64];
	struct dirent *e;
	int n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	if (!d)
		return -1;
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static int count_lines(pid_t pid)
{
	char path[64], line[512];
	int n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		n++;
	fclose(f);
	return n;
}

/* What all processes of a broker hold. */
struct held {
	int fds[3], maps[3 + RUNNERS]; /* of broker, spawner, template; the workers */
	long long memfd_bytes;
};

static void look_once(struct pt2box *c, struct held *h)
{
	static const char *const what[] = {"broker", "spawner", "template"};
	json_t *o;

	for (int i = 0; i < 3; i++) {
		h->fds[i] = count_fds(test_ps_pid(c, what[i], 0));
		h->maps[i] = count_lines(test_ps_pid(c, what[i], 0));
	}
	for (int i = 0; i < RUNNERS; i++)
		h->maps[3 + i] = count_lines(test_ps_pid(c, "worker", (size_t)i));
	o = test_ps(c);
	h->memfd_bytes = json_integer_value(
		json_object_get(json_array_get(json_object_get(o, "models"), 0), "memfd_bytes"));
	json_decref(o);
}

/* Workers may still be replaced by such as share more: look until nothing moves. */
static void look(struct pt2box *c, struct held *h)
{
	struct held before;

	memset(h, 0, sizeof(*h));
	for (int i = 0, still = 0; i < 40 && still < 4; i++) {
		before = *h;
		usleep(50000);
		look_once(c, h);
		still = memcmp(&before, h, sizeof(before)) == 0 ? still + 1 : 0;
	}
}

static void assert_held(struct pt2box *c, const struct held *was)
{
	const long until = test_now_ms() + 3000;
	struct held now;
	bool more;

	/* Old processes may still be on their way out. */
	do {
		look_once(c, &now);
		/* Pages of lanes are taken as they are used. One generation of constants is more
		 * than this. */
		more = now.memfd_bytes > was->memfd_bytes + 65536;
		for (int i = 0; i < 3; i++)
			more |= now.fds[i] > was->fds[i];
		for (int i = 0; i < 3 + RUNNERS; i++)
			more |= now.maps[i] > was->maps[i] + 2; /* a heap that has grown */
		usleep(20000);
	} while (more && test_now_ms() < until);
	if (!more)
		return;
	fprintf(stderr, "memfd bytes %lld, then %lld\n", was->memfd_bytes, now.memfd_bytes);
	for (int i = 0; i < 3; i++)
		fprintf(stderr, "descriptors %d, then %d\n", was->fds[i], now.fds[i]);
	for (int i = 0; i < 3 + RUNNERS; i++)
		fprintf(stderr, "mappings %d, then %d\n", was->maps[i], now.maps[i]);
	fail_msg("more is held than before");
}

static void run_all_workers(struct pt2box_model *m)
{
	struct runner r[4];

	start_runners(r, 4, m, 100, NULL, false);
	join_runners(r, 4);
}

static void test_nothing_grows(void **state)
{
	struct held was;
	struct loaded l;
	int fds;

	(void)state;
	loaded_open(&l, NULL, "mlp", RUNNERS);
	begun = returned = newest = 0;
	for (long u = 2; u < 22; u++)
		next_update(l.m, u);
	OK(update(l.m, 22, PT2BOX_CONSTANTS_INACTIVE, &test_error));
	run_all_workers(l.m);
	fds = check_count_fds();
	look(l.c, &was);
	if (was.fds[0] < 0)
		fprintf(stderr, "the broker's descriptors are not readable: only mappings and ps "
				"are looked at\n");
	for (long u = 23; u < UPDATES + 23; u++)
		if (u % 10)
			next_update(l.m, u);
		else
			OK(update(l.m, u, PT2BOX_CONSTANTS_INACTIVE, &test_error));
	run_all_workers(l.m);
	assert_int_equal(check_count_fds(), fds);
	assert_held(l.c, &was);
	loaded_close(&l);
}

/* ---- deaths in the middle ---- */

struct killer {
	pthread_t thread;
	struct pt2box *c;
	const char *what;
	useconds_t apart;
	int most; /* kills: a template that keeps dying is given up */
	atomic_bool stop;
	atomic_int kills;
};

static void *kill_thread(void *data)
{
	struct killer *k = data;
	uint64_t seed = 11;

	while (!k->stop && k->kills < k->most) {
		pid_t pid;

		usleep((useconds_t)(check_rand(&seed) % k->apart));
		pid = test_ps_pid(k->c, k->what, check_rand(&seed) % RUNNERS);
		if (pid > 0 && kill(pid, SIGKILL) == 0)
			k->kills++;
	}
	return NULL;
}

/* Every update ends; one that says OK is in force, one that fails has not happened for anybody. */
static void check_deaths(const char *what, int updates, useconds_t apart, int most)
{
	struct killer k = {.what = what, .apart = apart, .most = most};
	struct runner r[4];
	atomic_bool more = true;
	struct held was;
	struct loaded l;
	long number = 2, failed[1000], n_failed = 0, worst = 0;

	memset(seen, 0, sizeof(seen));
	loaded_open(&l, NULL, "mlp", RUNNERS);
	begun = returned = newest = 0;
	/* From the second one on an intake waits for the next. */
	next_update(l.m, number++);
	next_update(l.m, number);
	run_all_workers(l.m);
	look(l.c, &was);
	k.c = l.c;
	start_runners(r, 4, l.m, 0, &more, true);
	assert_int_equal(pthread_create(&k.thread, NULL, kill_thread, &k), 0);
	for (int i = 0; i < updates || (k.kills < 3 && number < 900); i++) {
		const long at = test_now_ms();
		enum pt2box_status st;

		begun = ++number;
		st = update(l.m, number, 0, &test_error);
		if (!st)
			returned = number;
		else if (is_death(st))
			failed[n_failed++] = number;
		else
			fail_msg("update: %s: %s", pt2box_status_name(st), test_error.text);
		worst = test_now_ms() - at > worst ? test_now_ms() - at : worst;
	}
	k.stop = true;
	pthread_join(k.thread, NULL);
	more = false;
	join_runners(r, 4);
	fprintf(stderr, "%d killed (%s), %ld updates, %ld failed, the longest took %ld ms\n",
		k.kills, what, number - 2, n_failed, worst);
	while (n_failed > 0)
		assert_false(seen[failed[--n_failed]]);
	assert_true(k.kills > 2);
	/* The last death may be felt once more. */
	for (int i = 0; is_death(update(l.m, ++number, 0, &test_error)) && i < 3; i++)
		usleep(100000);
	begun = ++number;
	OK(update(l.m, number, 0, &test_error));
	returned = number;
	for (size_t i = 0; i < RUNNERS; i++)
		while (test_ps_pid(l.c, "worker", i) <= 0)
			usleep(1000);
	run_all_workers(l.m);
	assert_held(l.c, &was);
	loaded_close(&l);
}

static void test_worker_killed(void **state)
{
	(void)state;
	check_deaths("worker", 60, 40000, 100);
}

static void test_template_killed(void **state)
{
	(void)state;
	check_deaths("template", 40, 400000, 5);
}

/* A client that goes in the middle of an update leaves nothing, and others feel nothing. */
static void test_client_killed(void **state)
{
	const char *libexec = getenv("PT2BOX_LIBEXEC");
	struct test_broker b;
	struct pt2box *c;
	struct loaded l;
	int fds;

	(void)state;
	assert_int_equal(test_broker_start(&b, libexec), 0);
	OK(pt2box_open(b.socket, &c, &test_error));
	loaded_open(&l, c, "mlp", 1);
	fds = test_broker_fds(&b);
	for (int i = 0; i < 12; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			struct pt2box *mine;
			struct loaded o;

			if (pt2box_open(b.socket, &mine, &test_error))
				_exit(1);
			loaded_open(&o, mine, "mlp", 2);
			for (long u = 2;; u++)
				if (update(o.m, u, 0, &test_error))
					_exit(1);
		}
		usleep((useconds_t)(60000 + i * 7000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		loaded_gives(&l, l.m, l.f.cases[0].out);
	}
	for (long until = test_now_ms() + 5000; test_broker_fds(&b) > fds && test_now_ms() < until;)
		usleep(10000);
	assert_true(test_broker_fds(&b) <= fds);
	assert_true(test_broker_alive(&b));
	loaded_close(&l);
	pt2box_close(c);
	assert_int_equal(test_broker_stop(&b), 0);
	test_remove_tree(b.dir);
}

/* ---- one slow worker ---- */

/* Nobody waits for more than the runs in flight: an update returns while a queue is long, and runs
 * go on. */
static void test_update_with_a_queue(void **state)
{
	static const int64_t sizes[2] = {ROWS, IN};
	struct pt2box_run *run[200];
	struct pt2box_tensor *t, *out;
	struct loaded l;
	long last = 0;

	(void)state;
	loaded_open(&l, NULL, "mlp", 2);
	OK(update(l.m, 2, 0, &test_error));
	OK(pt2box_tensor_alloc(l.m, PT2BOX_FLOAT32, 2, sizes, &t, &test_error));
	memcpy(pt2box_tensor_get_info(t)->data, input, sizeof(input));
	for (long u = 3; u < 8; u++) {
		for (int i = 0; i < 200; i++)
			OK(pt2box_run_start(l.m, &t, 1, NULL, &run[i], &test_error));
		OK(update(l.m, u, 0, &test_error));
		for (int i = 0; i < 200; i++) {
			OK(pt2box_run_finish(run[i], &out, &test_error));
			last = generation_of(pt2box_tensor_get_info(out)->data);
			assert_true(last == u || last == u - 1);
			pt2box_tensor_free(out);
		}
		OK(pt2box_run(l.m, &t, 1, NULL, &out, &test_error));
		assert_int_equal(generation_of(pt2box_tensor_get_info(out)->data), u);
		pt2box_tensor_free(out);
	}
	pt2box_tensor_free(t);
	loaded_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_update_under_load),  CHECK_TEST(test_swap_under_load),
		CHECK_TEST(test_concurrent_updates), CHECK_TEST(test_update_with_a_queue),
		CHECK_TEST(test_nothing_grows),	     CHECK_TEST(test_worker_killed),
		CHECK_TEST(test_template_killed),    CHECK_TEST(test_client_killed),
	};

	make_generations();
	return test_programs_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
