/* SPDX-License-Identifier: Apache-2.0 */
/* See cycles.h. */
#include "tests/lib/cycles.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "include/pt2box.h"
#include "tests/lib/package.h"

#define EACH 8
#define N 16

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static enum pt2box_status run(struct pt2box_model *m, float first, struct pt2box_error *e)
{
	static const int64_t size = N;
	struct pt2box_tensor *t, *out = NULL;
	enum pt2box_status st = pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, &size, &t, e);
	float *p;

	if (st)
		return st;
	p = pt2box_tensor_get_info(t)->data;
	for (int i = 0; i < N; i++)
		p[i] = i ? 1 : first;
	st = pt2box_run(m, &t, 1, NULL, &out, e);
	pt2box_tensor_free(out);
	pt2box_tensor_free(t);
	return st;
}

/* Up to EACH crashes of one model. */
static const char *crash_some(struct pt2box *c, int package, size_t n, uint32_t *ret_us, struct pt2box_error *e)
{
	struct pt2box_model *m;
	const char *why = NULL;

	if (pt2box_load_fd(c, package, NULL, &m, e))
		return "the model does not load";
	if (run(m, 1, e))
		why = "a run before the crash failed";
	for (size_t i = 0; i < n && !why; i++) {
		uint64_t died;

		if (run(m, 666, e) != PT2BOX_MODEL_CRASHED)
			why = "the crash is no MODEL_CRASHED";
		died = now_ns();
		if (!why && run(m, 1, e))
			why = "a run after the crash failed";
		if (ret_us)
			ret_us[i] = (uint32_t)((now_ns() - died) / 1000);
	}
	pt2box_unload(m);
	return why;
}

const char *test_crash_n_times(const char *socket, const char *dir, const char *models, size_t n, uint32_t *ret_us)
{
	static char words[800];
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct test_package p = {.constants = false};
	const char *why = NULL;
	struct pt2box *c;
	char so[400], path[300];
	int package;

	snprintf(so, sizeof(so), "%s/segfault.3.so", models);
	snprintf(path, sizeof(path), "%s/cycles.pt2", dir);
	p.so_path = so;
	if (test_package_write(path, &p) != 0)
		return "the package cannot be written";
	package = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	if (pt2box_open(socket, &c, &e)) {
		close(package);
		return "no connection";
	}
	for (size_t i = 0; i < n && !why; i += EACH)
		why = crash_some(c, package, n - i < EACH ? n - i : EACH, ret_us ? ret_us + i : NULL, &e);
	pt2box_close(c);
	close(package);
	if (!why)
		return NULL;
	snprintf(words, sizeof(words), "%s: %s: %s", why, pt2box_status_name(e.status), e.text);
	return words;
}
