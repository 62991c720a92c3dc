/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one client does to a broker must not be felt by another: floods of every kind, on connections of their own, while
 * a second client asks a question over and over and is answered each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/socket.h"
#include "tests/lib/broker.h"
#include "tests/lib/check.h"
#include "tests/lib/raw.h"

#define CLIENTS 40
#define LOADS 60
#define ANSWER_MS 2000 /* the worst seen is 20; a broker that waits for somebody takes for ever */

static struct test_broker broker;
static int open_client(void)
{
	return raw_open(broker.socket);
}

/* The other client, which asks as long as @flooder runs, if there is one. */
static void expect_answers(pid_t flooder)
{
	struct pb_msg_describe ask = {.request = 1, .model = 1};
	int canary = open_client(), status = 0;
	unsigned asked = 0;

	assert_true(canary >= 0);
	while ((flooder && waitpid(flooder, &status, WNOHANG) == 0) || asked < 20) {
		ask.request = ++asked;
		assert_int_equal(pb_send(canary, PB_MSG_describe, &ask, NULL, 0, NULL), PT2BOX_OK);
		assert_int_equal(raw_answer(canary, ANSWER_MS), PB_MSG_failed); /* NOT_FOUND, at once */
		usleep(20000);
	}
	assert_int_equal(status, 0);
	close(canary);
}

static pid_t flood_with(void (*flood)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		flood();
		_exit(0);
	}
	return pid;
}

/* Loads by the thousand: more than the sockets between broker and spawner hold, in both directions. */
static void flood_loads(void)
{
	int client[CLIENTS], package = raw_junk(), answers = 0;

	for (int c = 0; c < CLIENTS; c++)
		client[c] = open_client();
	for (int i = 0; i < LOADS; i++)
		for (int c = 0; c < CLIENTS; c++)
			raw_send_load(client[c], (uint64_t)i + 1, package, 0);
	for (int c = 0; c < CLIENTS; c++)
		for (int i = 0; i < LOADS && raw_answer(client[c], 20000) == PB_MSG_failed; i++)
			answers++;
	if (answers != CLIENTS * LOADS)
		_exit(1);
}

static void test_flood_of_loads(void **state)
{
	(void)state;
	expect_answers(flood_with(flood_loads));
}

/* A question that costs the broker much, as often as the socket takes it. */
static void flood_doctor(void)
{
	struct pb_msg_doctor m = {.request = 1};
	int fd = open_client();

	for (int i = 0; i < 400; i++)
		if (pb_send(fd, PB_MSG_doctor, &m, NULL, 0, NULL) != PT2BOX_OK || raw_answer(fd, 5000) != PB_MSG_text)
			_exit(1);
}

/* Milliseconds of CPU that ended children of the spawner, the broker's only child, have used. */
static long spawned_cpu_ms(void)
{
	long cutime = -1, cstime = -1;
	char path[80];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", broker.pid, broker.pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &pid), 1);
	fclose(f);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %ld %ld", &cutime, &cstime),
			 2);
	fclose(f);
	return (cutime + cstime) * 1000 / sysconf(_SC_CLK_TCK);
}

static void test_flood_of_questions(void **state)
{
	long before = spawned_cpu_ms();

	(void)state;
	expect_answers(flood_with(flood_doctor));
	/* Looked at anew each time, it takes some 4 ms of CPU. */
	assert_true(CHECK_SANITIZED || spawned_cpu_ms() - before < 400);
}

/* More connections than there are descriptors: the rest is closed, and the broker sleeps. */
static void flood_connections(void)
{
	int fd[400];

	for (int i = 0; i < 400; i++)
		fd[i] = open_client();
	sleep(1);
	for (int i = 0; i < 400; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static void test_flood_of_connections(void **state)
{
	(void)state;
	expect_answers(flood_with(flood_connections));
}

/* ---- a file that another program serves ---- */

static void fuse_reply(int dev, const struct fuse_in_header *in, int error, const void *data, size_t bytes)
{
	struct fuse_out_header out = {(uint32_t)(sizeof(out) + bytes), error, in->unique};
	struct iovec v[2] = {{&out, sizeof(out)}, {(void *)data, bytes}};

	(void)!writev(dev, v, bytes ? 2 : 1);
}

/* One file, which opens and never closes: what a close waits for is not answered; nor, when @deaf, what it is or lies on. */
static _Noreturn void fuse_serve(int dev, bool deaf)
{
	static char buf[1 << 17];
	const struct fuse_in_header *in = (void *)buf;

	while (read(dev, buf, sizeof(buf)) > 0) {
		struct fuse_attr attr = {.ino = in->nodeid, .nlink = 1, .mode = S_IFREG | 0644, .size = 100};
		struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 65536};
		struct fuse_entry_out entry = {.nodeid = 2};
		struct fuse_attr_out attrs = {.attr_valid = 0};
		struct fuse_open_out opened = {.fh = 1};
		struct fuse_statfs_out fs = {.st = {.bsize = 4096, .namelen = 255}};

		if (in->nodeid == 1)
			attr.mode = S_IFDIR | 0755;
		attrs.attr = attr;
		entry.attr = (struct fuse_attr){.ino = 2, .nlink = 1, .mode = S_IFREG | 0644, .size = 100};
		if (in->opcode == FUSE_INIT)
			fuse_reply(dev, in, 0, &init, sizeof(init));
		else if (in->opcode == FUSE_LOOKUP)
			fuse_reply(dev, in, 0, &entry, sizeof(entry));
		else if (deaf && in->nodeid == 2 && (in->opcode == FUSE_GETATTR || in->opcode == FUSE_STATFS))
			continue;
		else if (in->opcode == FUSE_GETATTR)
			fuse_reply(dev, in, 0, &attrs, sizeof(attrs));
		else if (in->opcode == FUSE_OPEN)
			fuse_reply(dev, in, 0, &opened, sizeof(opened));
		else if (in->opcode == FUSE_STATFS)
			fuse_reply(dev, in, 0, &fs, sizeof(fs));
		else if (in->opcode != FUSE_FLUSH && in->opcode != FUSE_FORGET)
			fuse_reply(dev, in, -ENOSYS, NULL, 0);
	}
	_exit(0);
}

/* Mounted at @dir with @more options, and served; its file is handed to the broker in every way there is. */
static void give_files_of(const char *name, const char *more, bool deaf)
{
	int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC), client, package;
	char dir[100], path[110], opt[120];
	pid_t server, flooder;

	snprintf(dir, sizeof(dir), "%s/%s", broker.dir, name);
	snprintf(path, sizeof(path), "%s/f", dir);
	snprintf(opt, sizeof(opt), "fd=%d,rootmode=40000,user_id=%u,group_id=%u%s", dev, getuid(), getgid(), more);
	if (dev < 0 || mkdir(dir, 0755) != 0 || mount("fuse", dir, "fuse", MS_NOSUID | MS_NODEV, opt) != 0) {
		close(dev);
		skip();
	}
	server = fork();
	if (server == 0)
		fuse_serve(dev, deaf);
	close(dev);
	flooder = fork();
	if (flooder == 0) {
		/* Whether it is taken or refused, and on whatever message it comes: it has to be closed. */
		package = open(path, O_RDONLY);
		client = open_client();
		raw_send_load(client, 1, package, 0);
		raw_send_load(client, 2, package, 1ull << 40);
		if (package < 0 || raw_answer(client, 5000) != PB_MSG_failed || raw_answer(client, 5000) != PB_MSG_failed)
			kill(getpid(), SIGKILL);
		(void)!pb_send(client, PB_MSG_ps, &(struct pb_msg_ps){.request = 3}, &package, 1, NULL);
		sleep(1);
		kill(getpid(), SIGKILL); /* its own close waits as well, until the server is gone */
	}
	sleep(1);
	expect_answers(0);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	umount2(dir, MNT_DETACH);
	waitpid(flooder, NULL, 0);
}

static void test_file_that_does_not_close(void **state)
{
	(void)state;
	give_files_of("fuse", "", false);
}

/* In the first namespace a mount may let everybody ask: then the kernel passes such questions on. */
static void test_file_system_that_does_not_answer(void **state)
{
	(void)state;
	give_files_of("deaf", ",allow_other", true);
}

/* Whether packages are still read: the canary's is junk, and refused. */
static void expect_loads(void)
{
	int package = raw_junk(), canary = open_client();

	assert_true(canary >= 0);
	for (uint64_t i = 1; i <= 5; i++) {
		raw_send_load(canary, i, package, 0);
		assert_int_equal(raw_answer(canary, 2 * ANSWER_MS), PB_MSG_failed);
		assert_int_equal(raw_rx.msg.failed.status, PT2BOX_PKG_REJECTED);
	}
	close(canary);
	close(package);
}

/* The same file below an overlay, which any user with namespaces may make, and whose magic is not FUSE's. */
static void test_file_below_an_overlay(void **state)
{
	int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC), client, package;
	char dir[100], over[100], path[110], opt[300];
	pid_t server, flooder;
	bool mounted;

	(void)state;
	snprintf(dir, sizeof(dir), "%s/fuse2", broker.dir);
	snprintf(over, sizeof(over), "%s/over", broker.dir);
	snprintf(path, sizeof(path), "%s/f", over);
	snprintf(opt, sizeof(opt), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", dev, getuid(), getgid());
	if (dev < 0 || mkdir(dir, 0755) != 0 || mkdir(over, 0755) != 0 ||
	    mount("fuse", dir, "fuse", MS_NOSUID | MS_NODEV, opt) != 0) {
		close(dev);
		skip();
	}
	server = fork();
	if (server == 0)
		fuse_serve(dev, false);
	close(dev);
	snprintf(opt, sizeof(opt), "lowerdir=%s:%s", dir, over);
	mounted = mount("overlay", over, "overlay", MS_NOSUID | MS_NODEV, opt) == 0;
	flooder = fork();
	if (flooder == 0) {
		package = open(path, O_RDONLY);
		client = open_client();
		for (uint64_t i = 1; i <= 3 && mounted && package >= 0; i++)
			raw_send_load(client, i, package, 0);
		sleep(2);
		kill(getpid(), SIGKILL);
	}
	sleep(1);
	if (mounted) {
		expect_answers(0);
		expect_loads();
	}
	umount2(over, MNT_DETACH);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	umount2(dir, MNT_DETACH);
	waitpid(flooder, NULL, 0);
	if (!mounted)
		skip();
}

/* In a container everything lies on an overlay: the library hands over a copy. */
static void test_package_on_an_overlay(void **state)
{
	struct test_paths paths;
	struct pt2box_error err;
	struct pt2box_model *m;
	struct pt2box *c;
	char over[110], opt[4600], path[200];

	(void)state;
	test_paths_init(&paths);
	snprintf(over, sizeof(over), "%s/over2", broker.dir);
	snprintf(opt, sizeof(opt), "lowerdir=%s:%s", paths.honest, broker.dir);
	if (mkdir(over, 0755) != 0 || mount("overlay", over, "overlay", MS_NOSUID | MS_NODEV, opt) != 0)
		skip();
	snprintf(path, sizeof(path), "%s/model.pt2", over);
	assert_int_equal(pt2box_open(broker.socket, &c, &err), PT2BOX_OK);
	assert_int_equal(pt2box_load_path(c, path, NULL, &m, &err), PT2BOX_OK);
	pt2box_unload(m);
	assert_int_equal(pt2box_load_path(c, over, NULL, &m, &err), PT2BOX_BAD_FD);
	pt2box_close(c);
	umount2(over, MNT_DETACH);
}

/* ---- what a client does not get ---- */

/* While intake writes it, the manifest can still be written by whoever has it. */
static void test_unsealed_memory(void **state)
{
	struct pb_msg_describe ask = {.request = 77};
	int package = raw_junk(), fd = open_client();

	(void)state;
	for (uint64_t i = 1; i <= 8; i++) {
		raw_send_load(fd, i, package, 0);
		ask.model = i;
		assert_int_equal(pb_send(fd, PB_MSG_describe, &ask, NULL, 0, NULL), PT2BOX_OK);
	}
	for (int i = 0; i < 16; i++)
		assert_int_equal(raw_answer(fd, 5000), PB_MSG_failed);
	close(fd);
	close(package);
}

/* The operator's limit is the most that there is. */
static void test_memory_above_the_limit(void **state)
{
	int package = raw_junk(), fd = open_client();

	(void)state;
	raw_send_load(fd, 1, package, 1ull << 40);
	assert_int_equal(raw_answer(fd, 5000), PB_MSG_failed);
	assert_int_equal(raw_rx.msg.failed.status, PT2BOX_LIMIT);
	close(fd);
	close(package);
}

static int begin(void **state)
{
	struct test_paths paths;

	(void)state;
	alarm(100);
	test_paths_init(&paths);
	return test_broker_start(&broker, paths.programs);
}

static int end(void **state)
{
	int left = test_broker_stop(&broker);

	(void)state;
	test_remove_tree(broker.dir);
	return left;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flood_of_loads),
		cmocka_unit_test(test_flood_of_questions),
		cmocka_unit_test(test_flood_of_connections),
		cmocka_unit_test(test_file_that_does_not_close),
		cmocka_unit_test(test_file_system_that_does_not_answer),
		cmocka_unit_test(test_file_below_an_overlay),
		cmocka_unit_test(test_package_on_an_overlay),
		cmocka_unit_test(test_unsealed_memory),
		cmocka_unit_test(test_memory_above_the_limit),
	};

	return cmocka_run_group_tests_name("tenants", tests, begin, end);
}
