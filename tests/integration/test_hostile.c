/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile models against the real programs: every attack ends in its named status within its time, the broker lives with
 * the same pid and as many descriptors as before, the model is served again, and another client that runs an honest
 * model all the while never sees a wrong bit.
 *
 * Runs as it is called; as root also a second time as an ordinary user, from a copy of the programs.
 * TEST_HOSTILE=name runs one attack of the table only.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "include/pt2box.h"
#include "tests/lib/broker.h"
#include "tests/lib/canary.h"
#include "tests/lib/package.h"

#define N 16
#define MAGIC 666.0f
#define RUN_MS 500
#define LOAD_MS 800
#define LATE_MS 1000   /* how much later than its deadline a timeout may be seen here */
#define PROMPT_MS 20000 /* everything that is no timeout, on a machine that does other things too */
#define LOG_BYTES (1 << 20) /* what all moments of one attack may have the broker write down: a share a second */

/* ---- the world of the tests ---- */

static struct {
	struct test_paths paths;
	struct test_broker broker;
	struct test_resources base;
	int failures;
	int left; /* things that were still there when the broker had ended */
} world;

static void failed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void failed(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("    FAILED: ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	fflush(stdout);
	world.failures++;
}

/* Whatever hangs, nothing of ours stays behind. */
static void on_alarm(int sig)
{
	static const char text[] = "test_hostile: overran its time\n";

	(void)sig;
	(void)!write(2, text, sizeof(text) - 1);
	kill(world.broker.pid, SIGTERM);
	_exit(1);
}

/* ---- the canary ---- */

static struct test_canary canary;

static void check_canary(void)
{
	const char *words = test_canary_check(&canary);

	if (words)
		failed("%s", words);
}

/* ---- one model ---- */

struct subject {
	struct pt2box *c;
	struct pt2box_model *m;
	struct pt2box_error e;
	float w; /* each of its constants, 0: none */
	float in[N], out[N];
};

static enum pt2box_status subject_load(struct subject *s, const char *name, int at, const char *constants,
				       const struct pt2box_load_options *opt)
{
	static float blob[1024];
	struct test_package p = {.constants = constants != NULL};
	char so[600], pkg[200];
	enum pt2box_status st;

	for (int i = 0; i < 1024; i++)
		blob[i] = 0.25f;
	memset(s, 0, sizeof(*s));
	s->w = constants ? 0.25f : 0;
	snprintf(so, sizeof(so), "%s/%s.%d.so", world.paths.models, name, at);
	snprintf(pkg, sizeof(pkg), "%s/%s.pt2", world.broker.dir, name);
	p.so_path = so;
	if (constants && strcmp(constants, "blob") == 0) {
		p.blob = blob;
		p.blob_bytes = sizeof(blob);
	}
	if (test_package_write(pkg, &p) != 0)
		return PT2BOX_INTERNAL;
	st = pt2box_open(world.broker.socket, &s->c, &s->e);
	if (!st)
		st = pt2box_load_path(s->c, pkg, opt, &s->m, &s->e);
	unlink(pkg);
	return st;
}

static void subject_close(struct subject *s)
{
	pt2box_unload(s->m);
	pt2box_close(s->c);
	s->m = NULL;
	s->c = NULL;
}

/* Run on s->in; on success s->out is what came out, and s->in what became of the input. */
static enum pt2box_status subject_run(struct subject *s)
{
	const int64_t size = N;
	struct pt2box_tensor *t, *out = NULL;
	const struct pt2box_tensor_info *info;
	enum pt2box_status st;

	memset(&s->e, 0, sizeof(s->e));
	st = pt2box_tensor_alloc(s->m, PT2BOX_FLOAT32, 1, &size, &t, &s->e);
	if (st)
		return st;
	memcpy(pt2box_tensor_get_info(t)->data, s->in, sizeof(s->in));
	st = pt2box_run(s->m, &t, 1, NULL, &out, &s->e);
	info = st || !out ? NULL : pt2box_tensor_get_info(out);
	memset(s->out, 0, sizeof(s->out));
	if (info && info->dtype == PT2BOX_FLOAT32 && info->numel == N)
		memcpy(s->out, info->data, sizeof(s->out));
	memcpy(s->in, pt2box_tensor_get_info(t)->data, sizeof(s->in));
	pt2box_tensor_free(out);
	pt2box_tensor_free(t);
	return st;
}

static enum pt2box_status good_run(struct subject *s)
{
	enum pt2box_status st;

	for (int i = 0; i < N; i++)
		s->in[i] = (float)(i + 1) / 8;
	st = subject_run(s);
	for (int i = 0; i < N && !st; i++)
		if (s->out[i] != (float)(i + 1) / 4 + s->w) {
			failed("a good run gave %g in place %d", (double)s->out[i], i);
			return PT2BOX_INTERNAL;
		}
	return st;
}

static enum pt2box_status bad_run(struct subject *s, int kind)
{
	for (int i = 0; i < N; i++)
		s->in[i] = (float)i;
	s->in[0] = MAGIC;
	s->in[1] = (float)kind;
	return subject_run(s);
}

/* No text that a model had a hand in may reach a terminal as it is. */
static void check_text(const char *what, const struct pt2box_error *e)
{
	for (const char *p = e->text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			failed("%s: a control character in the error's text", what);
	if (strcmp(pt2box_status_name(e->status), "?") == 0)
		failed("%s: status %d has no name", what, (int)e->status);
	if (e->status && !e->text[0])
		failed("%s: no text", what);
}

/* ---- the table ---- */

#define C 1 /* in a constructor */
#define K 2 /* while the container is made */
#define D 4 /* in the dry run */
#define R 8 /* in a run */
#define LOADING (C | K | D)
#define ALL (LOADING | R)

enum {
	STRICT = 1,
	SHORT = 2,   /* a timeout is expected: short deadlines */
	SMALL = 4,   /* 160 MiB */
	BLOB = 8,    /* constants in a file of their own */
	EMBEDDED = 16,
	NO_NEXT = 32, /* the state it leaves in its own process is its own affair */
	THREADS = 64,
};

#define S(name) (1ull << PT2BOX_##name)

struct row {
	const char *id; /* of the list of attacks in the design notes; "" has none there */
	const char *name;
	unsigned at;
	unsigned flags;
	uint64_t want; /* statuses that are right */
	int signal;    /* 0: not looked at */
	const char *text; /* must be in the error's text; NULL: anything */
};

static const struct row rows[] = {
#define ATTACK(...)
#define MODEL(...) {__VA_ARGS__},
#define SHOWN(...)
#define WAITS(...)
#include "tests/attacks.def"
};

static const char *moment(int at)
{
	static const char *const names[] = {"constructor", "create", "dry run", "run"};

	return names[at];
}

/* PyTorch's library compiles kernels: it may make memory executable, in profile strict it is told no. */
static const struct row torch_rows[] = {
	{"M17", "mprotect_exec", ALL, 0, S(OK), 0, NULL},
	{"M17", "mprotect_exec", ALL, STRICT, S(OK), 0, NULL},
	{"M17", "run_written", ALL, 0, S(MODEL_ERROR) | S(OK), 0, NULL}, /* OK: errors of a dry run are not told */
	{"M17", "run_written", ALL, STRICT, S(OK), 0, NULL},
};

static const struct row *row_of(size_t i)
{
	const struct row *r = &rows[i];
	const char *backend = getenv("TEST_HOSTILE_BACKEND");

	if (!backend || strcmp(backend, "torch") != 0)
		return r;
	for (size_t k = 0; k < sizeof(torch_rows) / sizeof(torch_rows[0]); k++)
		if (strcmp(torch_rows[k].name, r->name) == 0 && torch_rows[k].flags == r->flags)
			return &torch_rows[k];
	return r;
}

static struct pt2box_load_options options_of(const struct row *r)
{
	struct pt2box_load_options o = PT2BOX_LOAD_OPTIONS_INIT;

	o.backend = getenv("TEST_HOSTILE_BACKEND"); /* torch: tools/check-torch.sh */
	if (r->flags & STRICT)
		o.profile = "strict";
	if (r->flags & SHORT) {
		o.load_deadline_ms = LOAD_MS;
		o.run_deadline_ms = RUN_MS;
	}
	if (r->flags & SMALL)
		o.memory_bytes = 160ull << 20;
	if (r->flags & THREADS)
		o.threads = 3;
	return o;
}

static const char *constants_of(const struct row *r)
{
	return r->flags & BLOB ? "blob" : r->flags & EMBEDDED ? "embedded" : NULL;
}

/* How the attack ended, against the row. */
static void judge(const struct row *r, int at, enum pt2box_status st, const struct pt2box_error *e, long took_ms)
{
	long limit = PROMPT_MS;
	char what[80];

	if (r->flags & SHORT)
		limit = (at == 3 ? RUN_MS : LOAD_MS) + LATE_MS;
	snprintf(what, sizeof(what), "%s in a %s", r->name, moment(at));
	printf("    %-4s %-16s %-11s %-14s %5ld ms  %.110s\n", r->id, r->name, moment(at), pt2box_status_name(st), took_ms,
	       st ? e->text : "");
	fflush(stdout);
	if ((unsigned)st > 63 || !(r->want >> st & 1))
		failed("%s: %s", what, pt2box_status_name(st));
	if (st && st != e->status)
		failed("%s: status %d, but %d in the error", what, (int)st, (int)e->status);
	if (st && r->signal && e->signal != r->signal)
		failed("%s: signal %d, not %d", what, e->signal, r->signal);
	if (st && r->text && !strstr(e->text, r->text))
		failed("%s: \"%s\" is not in the text", what, r->text);
	if (took_ms > limit)
		failed("%s: %ld ms, later than %ld", what, took_ms, limit);
	if (st)
		check_text(what, e);
}

static void attack_while_loading(const struct row *r, int at)
{
	struct pt2box_load_options opt = options_of(r);
	struct subject s;
	long began = test_now_ms();
	enum pt2box_status st = subject_load(&s, r->name, at, constants_of(r), &opt);

	judge(r, at, st, &s.e, test_now_ms() - began);
	if (!st && !(r->flags & NO_NEXT) && good_run(&s))
		failed("%s: loaded, but a run gave %s: %s", r->name, pt2box_status_name(s.e.status), s.e.text);
	subject_close(&s);
}

static void attack_while_running(const struct row *r)
{
	struct pt2box_load_options opt = options_of(r);
	enum pt2box_status st;
	struct subject s;
	long began;

	st = subject_load(&s, r->name, 3, constants_of(r), &opt);
	if (st == PT2BOX_PKG_REJECTED) {
		judge(r, 3, st, &s.e, 0);
	} else if (st || good_run(&s)) {
		failed("%s: does not run before the attack: %s: %s", r->name, pt2box_status_name(s.e.status), s.e.text);
	} else {
		began = test_now_ms();
		st = bad_run(&s, 0);
		judge(r, 3, st, &s.e, test_now_ms() - began);
		if (strcmp(r->name, "store_input") == 0 && s.in[1] != -7)
			failed("store_input: the caller does not see what was written");
		began = test_now_ms();
		if (!(r->flags & NO_NEXT) && good_run(&s))
			failed("%s: the next run gave %s: %s", r->name, pt2box_status_name(s.e.status), s.e.text);
		if (test_now_ms() - began > PROMPT_MS)
			failed("%s: the next run took %ld ms", r->name, test_now_ms() - began);
	}
	subject_close(&s);
}

/* The broker is as it was: the same process, with as much of everything. */
static void check_broker(const char *what)
{
	const char *more;

	if (!test_broker_alive(&world.broker)) {
		failed("%s: the broker is dead; its log: %s", what, world.broker.log);
		exit(1);
	}
	more = test_broker_back_to(&world.broker, &world.base, 4000);
	if (more)
		failed("%s: not all is given back: %s", what, more);
}

static off_t log_bytes(void)
{
	struct stat sb;

	return stat(world.broker.log, &sb) == 0 ? sb.st_size : 0;
}

/* What an attack left on the disk: nothing but words, and not many. */
static void check_files(const char *what, off_t log_before)
{
	if (log_bytes() - log_before > LOG_BYTES)
		failed("%s: the broker wrote down %lld bytes", what, (long long)(log_bytes() - log_before));
	if (access("core", F_OK) == 0)
		failed("%s: there is a core file", what);
}

static void test_attacks(void **state)
{
	const char *only = getenv("TEST_HOSTILE");
	long runs, worst_us;

	(void)state;
	world.failures = 0;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		off_t log = log_bytes();

		if (only && strcmp(only, rows[i].name) != 0)
			continue;
		for (int at = 0; at < 4; at++) {
			if (!(row_of(i)->at >> at & 1))
				continue;
			if (at < 3)
				attack_while_loading(row_of(i), at);
			else
				attack_while_running(row_of(i));
		}
		check_broker(rows[i].name);
		check_files(rows[i].name, log);
		check_canary();
	}
	runs = test_canary_runs(&canary, &worst_us);
	printf("    the canary: %ld runs, slowest %ld us; the broker: %ld KiB\n", runs, worst_us,
	       test_broker_rss_kib(&world.broker));
	assert_int_equal(world.failures, 0);
}

/* ---- lies ---- */

struct lie {
	int kind;
	const char *what;
	uint64_t want;
	bool next_may_fail; /* once: what the lie left in the lane is answered by the broker */
};

#define BAD (S(MODEL_PROTOCOL) | S(BAD_TENSOR))

static const struct lie lies[] = {
	{1, "sizes whose product overflows", BAD, false},
	{2, "an offset far outside", BAD, false},
	{3, "a negative size", BAD, false},
	{4, "an unknown status", BAD, false},
	{5, "only answers from the future", S(MODEL_TIMEOUT), true},
	{6, "an impossible length", BAD, false},
	{7, "two thousand million outputs", BAD, false},
	{8, "claims in others' names, then death", S(MODEL_TIMEOUT) | S(MODEL_CRASHED), true},
	{9, "the control part is garbage", S(OK) | S(MODEL_PROTOCOL), true},
	{10, "the reply changes while it is read", S(OK) | BAD | S(MODEL_ERROR) | S(NOT_FOUND), true},
	{11, "text for terminals", S(MODEL_ERROR), false},
	{12, "an input that there is not was written", BAD, false},
	{13, "more was written than the input holds", BAD, false},
	{14, "needs 1 TiB of room", S(LIMIT) | BAD, false},
	{15, "an unknown dtype", BAD, false},
	{16, "1000 levels deep", BAD, false},
	{17, "success without outputs", BAD, false},
	{18, "an output that is None", S(OK), false},
	{19, "strides whose extent overflows", BAD, false},
	{20, "needs more room than there are numbers", S(LIMIT) | BAD, false},
	{21, "an unknown segment", BAD, false},
	{22, "an unknown signal", BAD, false},
	{23, "a status that only the broker gives", BAD | S(MODEL_ERROR), false},
	{24, "just past the end of the segment", BAD, false},
	{25, "all of the client's own bytes and more", BAD, false},
	{26, "needs a little more room, again and again", S(NOT_FOUND) | BAD | S(LIMIT) | S(OK), true},
	{27, "an empty reply", BAD, false},
	{28, "a false mark of a stored input, and death", S(MODEL_CRASHED) | S(MODEL_ERROR), false},
	{29, "a false mark of refused memory, and death", S(MODEL_OOM), false},
	{30, "an empty output", S(OK), false},
	{31, "wakes in a storm, no answer", S(MODEL_TIMEOUT), false},
	{32, "takes its claim back all the time", S(MODEL_TIMEOUT) | S(MODEL_PROTOCOL), false},
	{33, "claims of the future", S(OK), true},
	{34, "an answer that comes and goes", S(MODEL_TIMEOUT) | BAD, true},
};

static void tell_lie(const struct lie *l)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	enum pt2box_status st;
	struct subject s;
	char what[100];
	long began, took;

	opt.run_deadline_ms = 700;
	snprintf(what, sizeof(what), "lie %d (%s)", l->kind, l->what);
	st = subject_load(&s, "lies", 3, NULL, &opt);
	if (st || good_run(&s)) {
		failed("%s: not served before: %s: %s", what, pt2box_status_name(s.e.status), s.e.text);
		subject_close(&s);
		return;
	}
	began = test_now_ms();
	st = bad_run(&s, l->kind);
	took = test_now_ms() - began;
	printf("    %2d %-42s %-14s %5ld ms  %.90s\n", l->kind, l->what, pt2box_status_name(st), took, st ? s.e.text : "");
	fflush(stdout);
	if ((unsigned)st > 63 || !(l->want >> st & 1))
		failed("%s: %s: %s", what, pt2box_status_name(st), s.e.text);
	if (took > 700 + LATE_MS)
		failed("%s: %ld ms", what, took);
	if (st)
		check_text(what, &s.e);
	st = good_run(&s);
	for (int i = 0; st && l->next_may_fail && i < 20; i++) {
		usleep(50000);
		st = good_run(&s);
	}
	if (st)
		failed("%s: the next run gave %s: %s", what, pt2box_status_name(st), s.e.text);
	subject_close(&s);
}

static void test_lies(void **state)
{
	const char *only = getenv("TEST_LIE");

	(void)state;
	world.failures = 0;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		if (only && atoi(only) != lies[i].kind)
			continue;
		tell_lie(&lies[i]);
		check_broker("lies");
	}
	check_canary();
	assert_int_equal(world.failures, 0);
}

/* ---- killed by the memory cgroup ---- */

static char newest_group[600], our_groups[40];
static long newest_id;

/* The group of the process that was started last: groups have the numbers of the starts. */
static int find_newest(const char *path, const struct stat *sb, int type, struct FTW *at)
{
	long id = type == FTW_D && strstr(path, "/memory/") && strstr(path, our_groups) ? strtol(path + at->base, NULL, 10) : 0;

	(void)sb;
	if (id > newest_id) {
		newest_id = id;
		snprintf(newest_group, sizeof(newest_group), "%s", path);
	}
	return 0;
}

static bool limit_newest(const char *bytes)
{
	char path[700];
	bool ok;
	int fd;

	newest_id = 0;
	test_broker_group_name(&world.broker, our_groups); /* others may run beside */
	nftw("/sys/fs/cgroup", find_newest, 16, FTW_PHYS);
	snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", newest_group);
	fd = newest_id ? open(path, O_WRONLY | O_CLOEXEC) : -1;
	ok = fd >= 0 && write(fd, bytes, strlen(bytes)) > 0;
	close(fd);
	return ok;
}

/* M22: the worker goes beyond what its control group may have, which is less here than its own limit: the kernel kills it. */
static void test_cgroup_kill(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	enum pt2box_status st;
	struct subject s;

	(void)state;
	if (geteuid() != 0 || access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) != 0)
		skip(); /* control groups are root's, and these files those of version 1 */
	world.failures = 0;
	opt.memory_bytes = 2048ull << 20;
	if (subject_load(&s, "memory_mmap", 3, NULL, &opt) || good_run(&s) || !limit_newest("100M")) {
		failed("memory_mmap: not served, or no control group: %s", s.e.text);
	} else {
		st = bad_run(&s, 0);
		printf("    100 MiB for all of it: %s: %s\n", pt2box_status_name(st), s.e.text);
		if (st != PT2BOX_MODEL_OOM || s.e.signal != SIGKILL)
			failed("killed for memory: %s, signal %d", pt2box_status_name(st), s.e.signal);
		if (good_run(&s))
			failed("not served after it: %s", s.e.text);
	}
	subject_close(&s);
	world.base.processes++; /* the intake that waits, from the tests before */
	check_broker("cgroup");
	world.base.processes--;
	check_canary();
	assert_int_equal(world.failures, 0);
}

/* ---- changes of constants ---- */

enum change { UPDATE, EXTRACT };

static const struct {
	const char *name;
	int at, kind; /* the lie: see the model's source */
	enum change change;
	const char *what;
	uint64_t want;
} changes[] = {
	{"change_apply", 3, 0, UPDATE, "no lie", S(OK)},
	{"change_apply", 3, 1, UPDATE, "a worker never acknowledges", S(OK)},
	{"change_apply", 3, 2, UPDATE, "a worker closes its socket, and waits", S(OK)},
	{"change_apply", 3, 3, UPDATE, "a worker acknowledges everything", S(OK)},
	{"change_apply", 3, 4, UPDATE, "a worker says garbage", S(OK)},
	{"change_apply", 3, 5, UPDATE, "a worker dies", S(OK)},
	{"change_apply", 3, 6, UPDATE, "a worker's container refuses", S(OK)},
	{"change_apply", 3, 7, UPDATE, "a worker closes its socket, and goes on", S(OK)},
	{"change_apply", 2, 1, UPDATE, "a template never acknowledges", S(MODEL_TIMEOUT)},
	{"change_steal", 3, 0, EXTRACT, "no lie", S(OK)},
	{"change_steal", 3, 1, EXTRACT, "the memory stays mapped", S(MODEL_PROTOCOL)},
	{"change_steal", 3, 2, EXTRACT, "the memory is written on", S(MODEL_PROTOCOL)},
	{"change_steal", 3, 3, EXTRACT, "the memory is not filled", S(OK) | S(MODEL_PROTOCOL)},
	{"change_steal", 3, 6, EXTRACT, "nothing is said", S(MODEL_TIMEOUT)},
	{"change_steal", 3, 4, UPDATE, "says staged, and is not", S(OK)},
	{"change_steal", 3, 5, UPDATE, "says applied, and is not asked", S(OK)},
	{"change_steal", 3, 6, UPDATE, "takes the message away", S(OK) | S(MODEL_TIMEOUT)},
};

static enum pt2box_status update(struct subject *s)
{
	static const int64_t size = 1024;
	static float w[1024];
	struct pt2box_constant k = {.name = "w"};
	enum pt2box_status st = pt2box_tensor_lend(PT2BOX_FLOAT32, 1, &size, NULL, w, &k.tensor, &s->e);

	for (int i = 0; i < 1024; i++)
		w[i] = 0.5f;
	if (!st)
		st = pt2box_load_constants(s->m, &k, 1, PT2BOX_CONSTANTS_FULL, &s->e);
	pt2box_tensor_free(k.tensor);
	if (!st)
		s->w = 0.5f;
	return st;
}

static enum pt2box_status extract(struct subject *s)
{
	struct pt2box_constant *list;
	enum pt2box_status st;
	size_t n;

	st = pt2box_extract_constants(s->m, 0, &list, &n, &s->e);
	if (!st)
		pt2box_free_constants(list, n);
	return st;
}

/* The run that lies meanwhile. */
static void *run_in_thread(void *arg)
{
	struct subject *s = arg;

	(void)bad_run(s, (int)s->in[0]);
	return NULL;
}

static void change_while_lying(size_t i)
{
	const bool steals = strcmp(changes[i].name, "change_steal") == 0 && changes[i].kind;
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct subject s, run = {.m = NULL};
	enum pt2box_status st;
	pthread_t thread;
	char what[100];
	long began, took;

	opt.load_deadline_ms = LOAD_MS;
	opt.run_deadline_ms = 3000;
	snprintf(what, sizeof(what), "%s %d (%s)", changes[i].name, changes[i].kind, changes[i].what);
	if (subject_load(&s, changes[i].name, changes[i].at, "embedded", &opt) || good_run(&s)) {
		failed("%s: not served before: %s: %s", what, pt2box_status_name(s.e.status), s.e.text);
		subject_close(&s);
		return;
	}
	run = s;
	run.in[0] = (float)changes[i].kind;
	if (steals)
		pthread_create(&thread, NULL, run_in_thread, &run);
	else if (changes[i].kind && changes[i].at == 3 && bad_run(&s, changes[i].kind))
		failed("%s: cannot be armed: %s", what, s.e.text);
	if (steals)
		usleep(50000);
	began = test_now_ms();
	st = changes[i].change == UPDATE ? update(&s) : extract(&s);
	took = test_now_ms() - began;
	if (steals)
		pthread_join(thread, NULL);
	printf("    %-40s %-14s %5ld ms  %.90s\n", changes[i].what, pt2box_status_name(st), took, st ? s.e.text : "");
	fflush(stdout);
	if ((unsigned)st > 63 || !(changes[i].want >> st & 1))
		failed("%s: %s: %s", what, pt2box_status_name(st), s.e.text);
	/* A closed socket may be that of a worker whose death is not known yet: that is waited for. */
	if (took > (steals || changes[i].kind == 2 ? 3000 : LOAD_MS) + LATE_MS)
		failed("%s: %ld ms", what, took);
	if (st)
		check_text(what, &s.e);
	/* It is served again, by the constants that the status says. */
	st = good_run(&s);
	for (int k = 0; st && st != PT2BOX_INTERNAL && k < 20; k++) {
		usleep(50000);
		st = good_run(&s);
	}
	if (st)
		failed("%s: the next run gave %s: %s", what, pt2box_status_name(st), s.e.text);
	subject_close(&s);
}

static void test_changes(void **state)
{
	const char *only = getenv("TEST_CHANGE");

	(void)state;
	world.failures = 0;
	world.base.processes++; /* an intake may wait for the next update, for 10 s */
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		if (only && strtoul(only, NULL, 10) != i)
			continue;
		change_while_lying(i);
		check_broker(changes[i].what);
	}
	check_canary();
	world.base.processes--;
	assert_int_equal(world.failures, 0);
}

/* ---- calls one by one ---- */

#define CALL(name, ...) {SYS_##name, #name, {__VA_ARGS__}, 0, false}
#define HIGH(name, bits, ...) {SYS_##name, #name " with high bits", {__VA_ARGS__}, bits, false}

static const struct call {
	int nr;
	const char *name;
	int arg[6];
	int bits; /* arguments that get a bit above 32 */
	bool soft; /* the call may also fail and its caller live */
} calls[] = {
	CALL(read, 4), CALL(readv, 4), CALL(pread64, 4), CALL(writev, 4), CALL(sendto, 4), CALL(sendmsg, 4),
	CALL(sendmmsg, 4), CALL(open), CALL(openat, -100), CALL(openat2, -100), CALL(creat), CALL(stat), CALL(fstat, 4),
	CALL(lstat), CALL(statx), CALL(access), CALL(readlink), CALL(getdents64, 4), CALL(getcwd), CALL(chdir),
	CALL(mkdir), CALL(unlink), CALL(rename), CALL(link), CALL(symlink), CALL(mknod), CALL(chmod), CALL(mount),
	CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(fsopen), CALL(open_tree), CALL(move_mount),
	CALL(socket, 1, 1), CALL(socketpair, 1, 1), CALL(connect, 4), CALL(bind, 4), CALL(listen, 4), CALL(accept4, 4),
	CALL(setsockopt, 4), CALL(getsockopt, 4), CALL(shutdown, 4, 2), CALL(pipe2), CALL(eventfd2), CALL(epoll_create1),
	CALL(timerfd_create), CALL(signalfd4), CALL(inotify_init1), CALL(fanotify_init), CALL(memfd_create),
	CALL(memfd_secret), CALL(ftruncate, 4), CALL(fallocate, 4), CALL(dup, 4), CALL(dup2, 4, 9), CALL(dup3, 4, 9),
	CALL(fcntl, 4, 3), CALL(ioctl, 2, 0x5412), CALL(poll), CALL(select), CALL(fork), CALL(vfork), CALL(execve),
	CALL(execveat), CALL(clone, 17), CALL(unshare, 0), CALL(setns, 4), CALL(ptrace), CALL(process_vm_readv, 1),
	CALL(process_vm_writev, 1), CALL(process_madvise), CALL(pidfd_open, 1), CALL(pidfd_getfd), CALL(pidfd_send_signal),
	CALL(kcmp, 1, 1), CALL(kill, 1, 0), CALL(tkill, 1, 0), CALL(tgkill, 1, 1, 9), CALL(rt_sigqueueinfo, 1, 9),
	CALL(rt_sigaction, 31), CALL(sigaltstack), CALL(io_uring_setup, 1), CALL(userfaultfd), CALL(bpf),
	CALL(perf_event_open), CALL(keyctl), CALL(add_key), CALL(request_key), CALL(msgget), CALL(shmget), CALL(shmat),
	CALL(semget), CALL(mq_open), CALL(modify_ldt), CALL(personality, -1), CALL(prctl, 38), CALL(arch_prctl, 0x1003),
	CALL(seccomp, 2), CALL(landlock_create_ruleset), CALL(setuid, 0), CALL(setgid, 0), CALL(capset), CALL(setrlimit, 0),
	CALL(prlimit64), CALL(sched_setscheduler), CALL(sched_setaffinity), CALL(setpriority), CALL(mlockall, 3),
	CALL(remap_file_pages), CALL(init_module), CALL(kexec_load), CALL(reboot), CALL(swapon),
	CALL(settimeofday), CALL(clock_settime), CALL(adjtimex), CALL(sethostname), CALL(syslog, 10), CALL(acct),
	CALL(quotactl), CALL(name_to_handle_at), CALL(open_by_handle_at), CALL(setitimer), CALL(alarm, 1),
	CALL(timer_create), CALL(pause), CALL(wait4, -1), CALL(getppid), CALL(uname), CALL(vmsplice, 2),
	CALL(splice), CALL(tee), CALL(copy_file_range), CALL(sendfile, 2), CALL(ioperm), CALL(iopl, 3),
	CALL(membarrier), CALL(mbind), CALL(migrate_pages),
	/* Newer than some headers, and numbers that nothing has. */
	{451, "cachestat", {0}, 0, false}, {459, "lsm_get_self_attr", {0}, 0, false}, {462, "mseal", {0}, 0, false},
	{600, "call 600", {0}, 0, false}, {4095, "call 4095", {0}, 0, false}, {-1, "call -1", {0}, 0, false},
	{SYS_clone3, "clone3", {0}, 0, true}, {SYS_mremap, "mremap", {0}, 0, true}, {SYS_sysinfo, "sysinfo", {0}, 0, true},
	/* One argument off. */
	CALL(mmap, 0, 4096, 7, 0x22, -1, 0), CALL(mmap, 0, 4096, 5, 0x22, -1, 0), CALL(mmap, 0, 4096, 3, 0x21, -1, 0),
	CALL(madvise, 0, 0, 9), CALL(madvise, 0, 0, 100), CALL(write, 3), CALL(write, 77),
	CALL(recvmsg, 3), CALL(recvmsg, 77), CALL(clone, 0x3d0f00 | 0x20000000), CALL(clone, 0x7d0f00),
	CALL(mprotect, 0, 4096, 0x1000000),
	HIGH(mmap, 4, 0, 4096, 3, 0x22, -1, 0), HIGH(madvise, 4, 0, 0, 4), HIGH(write, 1, 2, 0, 0), HIGH(recvmsg, 1, 4),
	HIGH(tgkill, 4, 1, 1, 6), HIGH(clone, 1, 0x3d0f00), HIGH(mprotect, 4, 0, 4096, 3),
};

static void one_call(struct subject *s, const struct call *c, const char *profile)
{
	enum pt2box_status st;

	memset(s->in, 0, sizeof(s->in));
	s->in[0] = MAGIC;
	s->in[1] = (float)c->nr;
	for (int i = 0; i < 6; i++)
		s->in[2 + i] = (float)c->arg[i];
	s->in[8] = (float)c->bits;
	st = subject_run(s);
	if (c->soft && st == PT2BOX_OK && s->out[0] == -1)
		return;
	if (st != PT2BOX_MODEL_KILLED || s->e.signal != SIGSYS)
		failed("%s (%d), profile %s: %s, returned %g, errno %g: %s", c->name, c->nr, profile, pt2box_status_name(st),
		       (double)s->out[0], (double)s->out[1], s->e.text);
}

static void sweep(const char *profile)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct subject s = {.m = NULL};

	opt.profile = profile;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		/* A worker that keeps dying young is replaced more and more slowly: begin anew before. */
		if (i % 8 == 0) {
			subject_close(&s);
			if (subject_load(&s, "one_call", 3, NULL, &opt)) {
				failed("one_call: %s: %s", pt2box_status_name(s.e.status), s.e.text);
				break;
			}
		}
		one_call(&s, &calls[i], profile);
	}
	if (s.m && good_run(&s))
		failed("one_call: not served in the end: %s", s.e.text);
	subject_close(&s);
}

static void test_calls(void **state)
{

	(void)state;
	world.failures = 0;
	sweep("default");
	sweep("strict");
	printf("    %zu calls, each in both profiles\n", sizeof(calls) / sizeof(calls[0]));
	check_broker("calls");
	check_canary();
	assert_int_equal(world.failures, 0);
}

/* ---- explain ---- */

static void explain(const char *name, int at, const char *call, const char *policy)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	enum pt2box_status st;
	struct subject s;

	opt.explain = 1;
	st = subject_load(&s, name, at, NULL, &opt);
	if (at == 3 && !st && !good_run(&s))
		st = bad_run(&s, 0);
	printf("    %s in a %s: %s: %s\n", name, moment(at), pt2box_status_name(st), s.e.text);
	if (st != PT2BOX_MODEL_KILLED)
		failed("explain %s in a %s: %s", name, moment(at), pt2box_status_name(st));
	if (!strstr(s.e.text, call) || !strstr(s.e.text, policy))
		failed("explain %s: \"%s\" names not %s and %s", name, s.e.text, call, policy);
	if (at == 3 && st && good_run(&s))
		failed("explain %s: the next run gave %s: %s", name, pt2box_status_name(s.e.status), s.e.text);
	subject_close(&s);
}

static void test_explain(void **state)
{

	(void)state;
	world.failures = 0;
	explain("socket_tcp", 0, "socket(", ".policy");
	explain("socket_tcp", 3, "socket(", ".policy");
	explain("open_file", 0, "openat(", ".policy");
	explain("mmap_exec", 0, "mmap(", ".policy");
	explain("mmap_exec", 3, "mmap(", ".policy");
	explain("kill_warden", 3, "tgkill(", ".policy");
	explain("execve", 1, "execve(", ".policy");
	explain("fork_exact", 0, "fork", "");
	check_broker("explain");
	check_canary();
	assert_int_equal(world.failures, 0);
}

/* ---- a template that dies while its workers serve: loaded anew, a few times ---- */

static void test_late_crash(void **state)
{
	int ok = 0, crashed = 0;
	enum pt2box_status st = PT2BOX_OK;
	struct subject s;

	(void)state;
	world.failures = 0;
	if (subject_load(&s, "late_crash", 0, NULL, NULL))
		failed("late_crash: %s: %s", pt2box_status_name(s.e.status), s.e.text);
	for (long until = test_now_ms() + 8000; s.m && test_now_ms() < until; usleep(1000)) {
		st = good_run(&s);
		ok += st == PT2BOX_OK;
		crashed += st == PT2BOX_MODEL_CRASHED;
		if (st && st != PT2BOX_MODEL_CRASHED) {
			failed("late_crash: %s: %s", pt2box_status_name(st), s.e.text);
			break;
		}
		if (crashed > 20) /* given up: every run says so at once */
			break;
	}
	printf("    %d runs served, then: %s\n", ok, st ? s.e.text : "still served");
	if (s.m && (!ok || st != PT2BOX_MODEL_CRASHED || s.e.signal != SIGABRT))
		failed("late_crash: %d runs served, %d crashed, the last: %s", ok, crashed, pt2box_status_name(st));
	subject_close(&s);
	check_broker("late_crash");
	assert_int_equal(world.failures, 0);
}

/* ---- several runners: the others go on ---- */

static void test_runners(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct subject s;
	int killed = 0;

	(void)state;
	world.failures = 0;
	opt.runners = 3;
	if (subject_load(&s, "segfault", 3, NULL, &opt))
		failed("segfault with three runners: %s", s.e.text);
	for (int i = 0; s.m && i < 60; i++) {
		if (i % 3 == 2)
			killed += bad_run(&s, 0) == PT2BOX_MODEL_CRASHED;
		else if (good_run(&s))
			failed("run %d: %s: %s", i, pt2box_status_name(s.e.status), s.e.text);
	}
	if (killed != 20)
		failed("%d of 20 attacks ended in MODEL_CRASHED", killed);
	subject_close(&s);
	check_broker("runners");
	assert_int_equal(world.failures, 0);
}

/* ---- set-up ---- */

static int begin(void **state)
{
	(void)state;
	signal(SIGALRM, on_alarm);
	alarm(145); /* twice that is less than the runner allows */
	if (test_broker_start(&world.broker, world.paths.programs) != 0)
		return -1;
	if (test_canary_start(&canary, &world.broker, world.paths.honest) != 0) {
		test_broker_stop(&world.broker);
		return -1;
	}
	test_broker_resources(&world.broker, &world.base);
	if (world.base.fds < 0)
		printf("    (the broker's descriptors cannot be counted by this user)\n");
	return 0;
}

static int end(void **state)
{
	(void)state;
	test_canary_stop(&canary);
	world.left = test_broker_stop(&world.broker);
	if (!world.left && !world.failures)
		test_remove_tree(world.broker.dir);
	alarm(0);
	return world.left;
}

static int run_all(const char *group)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attacks), cmocka_unit_test(test_lies), cmocka_unit_test(test_calls),
		cmocka_unit_test(test_explain), cmocka_unit_test(test_late_crash), cmocka_unit_test(test_runners),
		cmocka_unit_test(test_changes), cmocka_unit_test(test_cgroup_kill),
	};

	/* A failed set-up or tear-down is printed, but not counted. */
	world.left = 1;
	return cmocka_run_group_tests_name(group, tests, begin, end) || world.left;
}

static int as_ordinary_user(void)
{
	return run_all("as an ordinary user");
}

int main(void)
{
	int bad;

	test_paths_init(&world.paths);
	if (geteuid() != 0)
		return run_all("as this user");
	bad = getenv("TEST_HOSTILE_USER") ? 0 : run_all("as root");
	return test_as_ordinary_user(&world.paths, as_ordinary_user) || bad;
}
