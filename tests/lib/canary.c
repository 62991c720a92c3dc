/* SPDX-License-Identifier: Apache-2.0 */
/* See canary.h. */
#include "tests/lib/canary.h"

#include <fcntl.h>
#include <grp.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "include/pt2box.h"
#include "tests/lib/package.h"

#define CANARY_UID 23456

struct test_canary_state {
	_Atomic bool stop;
	_Atomic long runs, wrong, errors, worst_us;
	char first_error[600];
};

static struct test_array *in, *want;

static long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static enum pt2box_status run_once(struct pt2box_model *m, unsigned char *ret, struct pt2box_error *e)
{
	struct pt2box_tensor *t, *out = NULL;
	enum pt2box_status st = pt2box_tensor_alloc(m, PT2BOX_FLOAT32, in->ndim, in->shape, &t, e);

	if (st)
		return st;
	memcpy(pt2box_tensor_get_info(t)->data, in->data, in->bytes);
	st = pt2box_run(m, &t, 1, NULL, &out, e);
	if (!st)
		memcpy(ret, pt2box_tensor_get_info(out)->data, want->bytes);
	pt2box_tensor_free(out);
	pt2box_tensor_free(t);
	return st;
}

/* Right is what PyTorch gave, closely; after that, the very same bits. */
static bool is_close(const unsigned char *got)
{
	const float *a = (const float *)(const void *)got, *b = (const float *)(const void *)want->data;

	for (size_t i = 0; i < want->bytes / sizeof(float); i++)
		if (!(fabsf(a[i] - b[i]) <= 1e-4f + 1e-3f * fabsf(b[i])))
			return false;
	return true;
}

static void note_error(struct test_canary_state *s, const struct pt2box_error *e)
{
	if (s->errors == 0)
		snprintf(s->first_error, sizeof(s->first_error), "%s: %s", pt2box_status_name(e->status), e->text);
	s->errors++;
}

static void serve(struct test_canary_state *s, const char *socket, int package)
{
	unsigned char *first = NULL, *got = malloc(want->bytes);
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pt2box_model *m = NULL;
	struct pt2box *c = NULL;

	if (pt2box_open(socket, &c, &e) || pt2box_load_fd(c, package, NULL, &m, &e))
		note_error(s, &e);
	while (m && !s->stop) {
		long began = now_us(), took;

		if (run_once(m, got, &e)) {
			note_error(s, &e);
			usleep(10000);
			continue;
		}
		took = now_us() - began;
		if (took > s->worst_us)
			s->worst_us = took;
		if (!first) {
			first = malloc(want->bytes);
			memcpy(first, got, want->bytes);
			s->wrong += !is_close(got);
		}
		s->wrong += memcmp(first, got, want->bytes) != 0;
		s->runs++;
		usleep(500);
	}
	pt2box_unload(m);
	pt2box_close(c);
	free(first);
	free(got);
}

static _Noreturn void canary_main(struct test_canary_state *s, const char *socket, int package)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGALRM, SIG_DFL);
	if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(CANARY_UID, CANARY_UID, CANARY_UID) != 0 ||
			       setresuid(CANARY_UID, CANARY_UID, CANARY_UID) != 0))
		_exit(1);
	serve(s, socket, package);
	_exit(0);
}

int test_canary_start(struct test_canary *c, const struct test_broker *b, const char *honest)
{
	char path[400];
	int package;

	snprintf(path, sizeof(path), "%s/in.npz", honest);
	in = test_npz_first(path);
	snprintf(path, sizeof(path), "%s/out.npz", honest);
	want = test_npz_first(path);
	snprintf(path, sizeof(path), "%s/model.pt2", honest);
	package = open(path, O_RDONLY | O_CLOEXEC);
	c->checked = 0;
	c->state = mmap(NULL, sizeof(*c->state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->state == MAP_FAILED)
		c->state = NULL;
	if (!in || !want || package < 0 || !c->state)
		return -1;
	c->pid = fork();
	if (c->pid == 0)
		canary_main(c->state, b->socket, package);
	close(package);
	for (long until = test_now_ms() + TEST_CANARY_LATE_MS; !c->state->runs && !c->state->errors && test_now_ms() < until;)
		usleep(1000);
	if (c->state->runs)
		return 0;
	fprintf(stderr, "the canary does not run: %s\n", c->state->first_error);
	test_canary_stop(c);
	return -1;
}

const char *test_canary_check(struct test_canary *c)
{
	static char words[800];
	struct test_canary_state *s = c->state;
	long until = test_now_ms() + TEST_CANARY_LATE_MS;

	while (s->runs == c->checked && test_now_ms() < until)
		usleep(1000);
	words[0] = '\0';
	if (s->runs == c->checked)
		snprintf(words, sizeof(words), "the canary has not run for %d ms", TEST_CANARY_LATE_MS);
	else if (s->errors || s->wrong)
		snprintf(words, sizeof(words), "the canary saw %ld errors (first: %s) and %ld wrong results", s->errors,
			 s->first_error, s->wrong);
	else if (s->worst_us > TEST_CANARY_LATE_MS * 1000l)
		snprintf(words, sizeof(words), "a run of the canary took %ld ms", s->worst_us / 1000);
	c->checked = s->runs;
	s->errors = s->wrong = 0;
	return words[0] ? words : NULL;
}

long test_canary_runs(const struct test_canary *c, long *ret_worst_us)
{
	*ret_worst_us = c->state->worst_us;
	return c->state->runs;
}

void test_canary_stop(struct test_canary *c)
{
	c->state->stop = true;
	for (int i = 0; i < 500 && waitpid(c->pid, NULL, WNOHANG) == 0; i++) {
		if (i == 300)
			kill(c->pid, SIGKILL);
		usleep(10000);
	}
	munmap(c->state, sizeof(*c->state));
	c->state = NULL;
	free(in);
	free(want);
	in = want = NULL;
}
