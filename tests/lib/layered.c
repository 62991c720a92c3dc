/* SPDX-License-Identifier: Apache-2.0 */
/* See layered.h. */
#include "tests/lib/layered.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/package.h"

#define N 16
#define DEADLINE_MS 60000 /* not what stops it: 4 GiB are touched where nothing does */

int test_listen_abstract(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "\0pt2box-test-abstract"};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return bind(s, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 21) == 0 && listen(s, 8) == 0 ? s : -1;
}

static enum pt2box_status run(struct pt2box_model *m, float first, struct pt2box_error *e)
{
	static const int64_t size = N;
	struct pt2box_tensor *t, *out = NULL;
	enum pt2box_status st = pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, &size, &t, e);

	if (st)
		return st;
	for (int i = 0; i < N; i++)
		((float *)pt2box_tensor_get_info(t)->data)[i] = i ? 0 : first;
	st = pt2box_run(m, &t, 1, NULL, &out, e);
	pt2box_tensor_free(out);
	pt2box_tensor_free(t);
	return st;
}

enum pt2box_status test_layered_attack(struct test_layered *l, const char *fixture, struct pt2box_error *e)
{
	static float blob[1024];
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct test_package p = {.constants = strncmp(fixture, "store", 5) == 0 || strncmp(fixture, "protect", 7) == 0};
	struct pt2box *c;
	struct pt2box_model *m = NULL;
	char so[400], path[200];
	enum pt2box_status st;

	snprintf(so, sizeof(so), "%s/%s.3.so", l->paths.models, fixture);
	snprintf(path, sizeof(path), "%s/m.pt2", l->broker.dir);
	p.so_path = so;
	if (strstr(fixture, "blob")) {
		p.blob = blob;
		p.blob_bytes = sizeof(blob);
	}
	opt.memory_bytes = 512ull << 20;
	opt.load_deadline_ms = DEADLINE_MS;
	opt.run_deadline_ms = DEADLINE_MS;
	if (test_package_write(path, &p) != 0)
		return PT2BOX_INTERNAL;
	st = pt2box_open(l->broker.socket, &c, e);
	if (st)
		return st;
	st = pt2box_load_path(c, path, &opt, &m, e);
	if (!st)
		st = run(m, 1, e);
	if (!st)
		st = run(m, 666, e);
	pt2box_unload(m);
	pt2box_close(c);
	return st;
}

bool test_got_through(const char *fixture, enum pt2box_status st, const struct pt2box_error *e)
{
	if (strcmp(fixture, "execve") == 0)
		return st == PT2BOX_MODEL_EXITED;
	return st == PT2BOX_MODEL_ERROR && strstr(e->text, "got what it wanted") != NULL;
}

void test_layered_end(struct test_layered *l)
{
	char path[64];

	kill(l->broker.pid, SIGTERM);
	for (int i = 0; i < 300 && waitpid(l->broker.pid, NULL, WNOHANG) == 0; i++)
		usleep(10000);
	for (int round = 0; round < 200; round++) {
		pid_t pid;
		bool any = false;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
		FILE *f = fopen(path, "re");

		while (f && fscanf(f, "%d", &pid) == 1) {
			any = true;
			kill(pid, SIGKILL);
		}
		if (f)
			fclose(f);
		if (!any)
			break;
		usleep(10000);
	}
	test_remove_tree(l->broker.dir);
}

bool test_layered_start(struct test_layered *l, const char *off, bool product)
{
	bool ok;

	test_paths_init(&l->paths);
	if (!product)
		snprintf(l->paths.programs, sizeof(l->paths.programs), "%.200s/tests/layers/libexec", test_build_dir());
	setenv("PB_TEST_LAYERS_OFF", off, 1);
	ok = test_broker_start(&l->broker, l->paths.programs) == 0;
	unsetenv("PB_TEST_LAYERS_OFF");
	return ok;
}

bool test_layered_begin(struct test_layered *l, const char *off)
{
	return test_layered_start(l, off, false);
}
