/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile clients and packages against a real broker: bytes, descriptors and lanes by hand (C01 to C13), archives (P01 to P07),
 * and what the system around it may do (S01 to S04). Each ends in its named status, another tenant never sees a wrong bit, and
 * afterwards the broker holds what it held before. Requests in a lane by hand: test_lane_by_hand.c.
 *
 * Runs as it is called; as root also a second time as an ordinary user.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/canary.h"
#include "tests/lib/check.h"
#include "tests/lib/cycles.h"
#include "tests/lib/package.h"
#include "tests/lib/raw.h"
#include "tests/unit/intake/kit.h"

#define ANSWER_MS 8000

static struct test_paths paths;
static struct test_broker broker;
static struct test_canary canary;
static struct test_resources base;
static char words[65536]; /* all that the broker has said: C13 */

/* ---- asking ---- */

/* The next answer is a failure with this status, and its text begins so. */
static void expect_failed(int fd, enum pt2box_status status, const char *begins)
{
	int id = raw_answer(fd, ANSWER_MS);
	size_t used = strlen(words);

	if (id != PB_MSG_failed)
		fail_msg("message %d, not a failure", id);
	if (raw_rx.msg.failed.status != (uint64_t)status || strncmp(raw_rx.msg.failed.text, begins, strlen(begins)) != 0)
		fail_msg("%s: %s, not %s with \"%s\"", pt2box_status_name((enum pt2box_status)raw_rx.msg.failed.status),
			 raw_rx.msg.failed.text, pt2box_status_name(status), begins);
	snprintf(words + used, sizeof(words) - used, "%s\n", raw_rx.msg.failed.text);
}

static int open_client(void)
{
	int fd = raw_open(broker.socket);

	assert_true(fd >= 0);
	return fd;
}

/* The connection is at its end. */
static void expect_end(int fd)
{
	assert_int_equal(raw_answer(fd, ANSWER_MS), -1);
	close(fd);
}

/* After each test: the other tenant, and what the broker holds. */
static int unharmed(void **state)
{
	const char *why = test_canary_check(&canary);

	(void)state;
	if (!why && !test_broker_alive(&broker))
		why = "the broker is dead";
	if (!why) /* an intake that waits for a second inspection does so for 10 s */
		why = test_broker_back_to(&broker, &base, 14000);
	if (why)
		print_error("%s\n", why);
	return why != NULL;
}

/* ---- C01, C02: bytes ---- */

static void test_bombs(void **state)
{
	static const struct {
		const char *what, *bytes;
		size_t n;
	} bomb[] = {
		{"an array of four thousand million", "\xdd\xff\xff\xff\xff", 5},
		{"hello with a text of 4 GiB", "\x93\x01\x01\xdb\xff\xff\xff\xff", 8},
		{"nested arrays", "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91", 20},
		{"nested huge arrays", "\xdd\x01\x00\x00\x00\xdd\x01\x00\x00\x00\xdd\x01\x00\x00\x00\xdd\x01\x00\x00\x00", 20},
		{"an extension type", "\x93\x01\xd4\x01\x00\xa1x", 7},
		{"a map", "\x81\x01\x01", 3},
		{"a float", "\x93\x01\xca\x00\x00\x00\x00\xa1x", 9},
		{"an unused byte", "\xc1", 1},
		{"an unknown message", "\x91\xcd\x27\x0f", 4},
		{"a message of the broker", "\x94\x16\x01\x01\x01", 5},
		{"one field too many", "\x94\x01\x01\xa1x\x00", 6},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bomb) / sizeof(bomb[0]); i++) {
		int fd = raw_connect(broker.socket);

		assert_true(fd >= 0);
		assert_int_equal(send(fd, bomb[i].bytes, bomb[i].n, MSG_NOSIGNAL), (ssize_t)bomb[i].n);
		expect_failed(fd, PT2BOX_PROTOCOL, "");
		expect_end(fd);
	}
}

static void test_frames(void **state)
{
	static char big[PB_FRAME_MAX + 1];
	int silent[20], fd;

	(void)state;
	for (int i = 0; i < 20; i++) {
		silent[i] = raw_connect(broker.socket);
		assert_true(silent[i] >= 0);
	}
	fd = raw_connect(broker.socket);
	memset(big, 0xc0, sizeof(big));
	assert_int_equal(send(fd, big, sizeof(big), MSG_NOSIGNAL), (ssize_t)sizeof(big));
	expect_failed(fd, PT2BOX_PROTOCOL, "");
	expect_end(fd);
	/* A whole message, and its first half: packets have no rest that might still come. */
	fd = open_client();
	assert_int_equal(send(fd, "\x93\x0d", 2, MSG_NOSIGNAL), 2);
	expect_failed(fd, PT2BOX_PROTOCOL, "");
	expect_end(fd);
	fd = open_client();
	assert_int_equal(send(fd, "", 0, MSG_NOSIGNAL), 0);
	expect_end(fd);
	for (int i = 0; i < 20; i++)
		close(silent[i]);
}

/* ---- C04 to C07: descriptors ---- */

static void send_many_fds(int sock, int fd, size_t n)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 253)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {"\x92\x0c\x01", 3}; /* ps */
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			   .msg_controllen = CMSG_SPACE(sizeof(int) * n)};
	struct cmsghdr *c;

	memset(&control, 0, sizeof(control));
	c = CMSG_FIRSTHDR(&h);
	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * n)};
	for (size_t i = 0; i < n; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	while (sendmsg(sock, &h, MSG_NOSIGNAL) < 0 && errno == ETOOMANYREFS)
		usleep(1000);
}

static void test_descriptor_flood(void **state)
{
	int junk = raw_junk();

	(void)state;
	for (int i = 0; i < 40; i++) {
		int fd = open_client();

		send_many_fds(fd, junk, i % 2 ? 253 : 1);
		expect_failed(fd, PT2BOX_PROTOCOL, "");
		expect_end(fd);
	}
	close(junk);
}

static void test_wrong_descriptors(void **state)
{
	int pipes[2], pair[2], fd = open_client(), kind[8], n = 0;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	kind[n++] = pipes[0];
	kind[n++] = pair[0];
	kind[n++] = open("/", O_RDONLY | O_DIRECTORY);
	kind[n++] = open("/dev/zero", O_RDWR);
	kind[n++] = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	kind[n++] = open(broker.log, O_WRONLY);
	kind[n++] = open(broker.log, O_PATH);
	kind[n++] = open("/proc/self/mem", O_RDONLY);
	for (int i = 0; i < n; i++) {
		raw_send_load(fd, (uint64_t)i + 1, kind[i], 0);
		expect_failed(fd, PT2BOX_BAD_FD, "the package ");
		close(kind[i]);
	}
	close(pipes[1]);
	close(pair[1]);
	close(fd);
}

static void test_sparse(void **state)
{
	int fd = open_client(), memory = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_int_equal(ftruncate(memory, 1ll << 40), 0);
	raw_send_load(fd, 1, memory, 0);
	expect_failed(fd, PT2BOX_LIMIT, "");
	close(memory);
	close(fd);
}

static int honest_copy(off_t *ret_bytes)
{
	char path[400];
	int to = memfd_create("package", MFD_CLOEXEC), from;
	struct stat sb;
	void *p;

	snprintf(path, sizeof(path), "%s/model.pt2", paths.honest);
	from = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(from, &sb), 0);
	p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, from, 0);
	assert_int_equal(write(to, p, (size_t)sb.st_size), sb.st_size);
	munmap(p, (size_t)sb.st_size);
	close(from);
	*ret_bytes = sb.st_size;
	return to;
}

/* Cut short or overwritten at any moment of a load: either all of it was read in time, or it is refused. */
static void test_file_that_changes(void **state)
{
	int fd = open_client(), loaded = 0, refused = 0;

	(void)state;
	for (uint64_t i = 0; i < 24; i++) {
		off_t bytes;
		int package = honest_copy(&bytes), id;

		raw_send_load(fd, i + 1, package, 0);
		usleep((useconds_t)(i / 2) * 700);
		if (i % 2)
			(void)!ftruncate(package, i < 12 ? 100 : bytes / 2);
		else
			(void)!pwrite(package, words, 4096, bytes / 3);
		id = raw_answer(fd, ANSWER_MS);
		if (id == PB_MSG_loaded)
			loaded++;
		else if (id == PB_MSG_failed && (raw_rx.msg.failed.status == PT2BOX_PKG_REJECTED ||
						 (i % 2 && raw_rx.msg.failed.status == PT2BOX_IO))) /* it became shorter */
			refused++;
		else
			fail_msg("message %d: %s", id, id == PB_MSG_failed ? raw_rx.msg.failed.text : "");
		close(package);
	}
	print_message("    %d times refused, %d times loaded as it was\n", refused, loaded);
	assert_true(refused > 0);
	close(fd);
}

/* Once it is loaded, the file may become what it likes: workers are forked from what was checked. */
static void test_file_that_is_gone(void **state)
{
	struct test_package p = {.constants = false};
	struct pt2box_tensor *t, *out;
	const int64_t size = 16;
	struct pt2box_error e;
	struct pt2box_model *m;
	struct pt2box *c;
	char so[400], path[300];
	int package;

	(void)state;
	snprintf(so, sizeof(so), "%s/abort.3.so", paths.models);
	snprintf(path, sizeof(path), "%s/gone.pt2", broker.dir);
	p.so_path = so;
	assert_int_equal(test_package_write(path, &p), 0);
	package = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(pt2box_open(broker.socket, &c, &e), PT2BOX_OK);
	assert_int_equal(pt2box_load_fd(c, package, NULL, &m, &e), PT2BOX_OK);
	assert_int_equal(ftruncate(package, 0), 0);
	unlink(path);
	assert_int_equal(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, &size, &t, &e), PT2BOX_OK);
	for (int i = 0; i < 3; i++) {
		float *in = pt2box_tensor_get_info(t)->data;

		for (int k = 0; k < 16; k++)
			in[k] = (float)(k + 1);
		assert_int_equal(pt2box_run(m, &t, 1, NULL, &out, &e), PT2BOX_OK);
		assert_true(((float *)pt2box_tensor_get_info(out)->data)[5] == 12);
		pt2box_tensor_free(out);
		in[0] = 666; /* and the next is another worker */
		assert_int_equal(pt2box_run(m, &t, 1, NULL, &out, &e), PT2BOX_MODEL_CRASHED);
	}
	pt2box_tensor_free(t);
	pt2box_unload(m);
	pt2box_close(c);
	close(package);
}

/* ---- P01 to P04: archives, through the real intake ---- */

static void expect_rejected(int sock, const struct kit_entry *e, uint32_t n, const char *word)
{
	struct kit_zip *z = calloc(1, sizeof(*z));
	int package;

	kit_zip(z, e, n);
	package = kit_memfd(z->p, z->n);
	raw_send_load(sock, 1, package, 0);
	expect_failed(sock, PT2BOX_PKG_REJECTED, word);
	close(package);
	free(z->p);
	free(z);
}

static void test_archives(void **state)
{
	static uint8_t zeros[1 << 20];
	static char huge[65536];
	const struct kit_entry one = kit_text("a/first", "one");
	const struct {
		const char *word;
		struct kit_entry e;
	} rows[] = {
		{"zip.name", kit_text("a/../../x", "x")},
		{"zip.name", kit_text("/etc/passwd", "x")},
		{"zip.name", kit_text("a\\b", "x")},
		{"zip.name", kit_text(huge, "x")},
		{"zip.name", {.name = "a\0b", .name_len = 3, .data = "x", .size = 1}},
		{"zip.name", {.name = "link", .data = "/etc", .size = 4, .mode = 0120777}},
		{"zip.ratio", {.name = "bomb", .data = zeros, .size = sizeof(zeros), .deflate = true}},
		{"zip.method", {.name = "e", .data = "x", .size = 1, .method = 99}},
		{"zip.encrypted", {.name = "e", .data = "x", .size = 1, .flags = 1}},
		{"zip.consistency", kit_text("a/first", "2")},
		{"zip.consistency", {.name = "a/x", .local_name = "a/y", .data = "x", .size = 1}},
		{"zip.consistency", {.name = "a/x", .data = "one", .size = 3, .at_first = true}},
		{"no_so", kit_text("a/data/aotinductor/model/x.wrapper.cpp", "int main() { }")},
	};
	int fd = open_client();

	(void)state;
	memset(huge, 'x', 65535);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_rejected(fd, (struct kit_entry[]){one, rows[i].e}, 2, rows[i].word);
	close(fd);
}

/* ---- C09, C10, C13: what is told ---- */

/* The numbers of one connection mean nothing on another; what is there and is not yours looks like what never was. */
static void test_guesses(void **state)
{
	int mine = open_client(), other = open_client();
	char never[600] = "";
	off_t bytes;
	int package = honest_copy(&bytes);
	uint64_t model;

	(void)state;
	raw_send_load(mine, 1, package, 0);
	assert_int_equal(raw_answer(mine, ANSWER_MS), PB_MSG_loaded);
	model = raw_rx.msg.loaded.model;
	for (int k = 0; k < 2; k++) {
		const uint64_t id = k ? model : 424242;
		struct pb_msg_describe describe = {.request = 1, .model = id};
		struct pb_msg_lane_open lane = {.request = 2, .model = id, .up_bytes = 4096, .down_bytes = 4096};
		struct pb_msg_unload unload = {.request = 3, .model = id};
		struct pb_msg_session_open session = {.request = 4, .model = id};
		struct pb_msg_read_constants constants = {.request = 5, .model = id};
		char all[600] = "";

		assert_int_equal(pb_send(other, PB_MSG_describe, &describe, NULL, 0, NULL), PT2BOX_OK);
		assert_int_equal(pb_send(other, PB_MSG_lane_open, &lane, NULL, 0, NULL), PT2BOX_OK);
		assert_int_equal(pb_send(other, PB_MSG_unload, &unload, NULL, 0, NULL), PT2BOX_OK);
		assert_int_equal(pb_send(other, PB_MSG_session_open, &session, NULL, 0, NULL), PT2BOX_OK);
		assert_int_equal(pb_send(other, PB_MSG_read_constants, &constants, NULL, 0, NULL), PT2BOX_OK);
		for (int i = 0; i < 5; i++) {
			size_t used = strlen(all);

			expect_failed(other, PT2BOX_NOT_FOUND, "no such");
			snprintf(all + used, sizeof(all) - used, "%s\n", raw_rx.msg.failed.text);
		}
		if (k)
			assert_string_equal(all, never);
		snprintf(never, sizeof(never), "%s", all);
	}
	close(package);
	close(mine);
	close(other);
}

static void test_names(void **state)
{
	struct pb_msg_hello hello = {.version = PB_PROTOCOL_VERSION, .program = "uid 0"};
	int fd = raw_connect(broker.socket);
	char want[40];

	(void)state;
	snprintf(want, sizeof(want), "uid %u", geteuid());
	assert_int_equal(pb_send(fd, PB_MSG_hello, &hello, NULL, 0, NULL), PT2BOX_OK);
	assert_int_equal(raw_answer(fd, ANSWER_MS), PB_MSG_hello_ok);
	assert_string_equal(raw_rx.msg.hello_ok.tenant, want);
	/* Not twice. */
	assert_int_equal(pb_send(fd, PB_MSG_hello, &hello, NULL, 0, NULL), PT2BOX_OK);
	expect_failed(fd, PT2BOX_PROTOCOL, "");
	expect_end(fd);
}

/* After the others: nothing of all that was said helps to know this machine. */
static void test_words(void **state)
{
	char pid[24], spawner[24];

	(void)state;
	snprintf(pid, sizeof(pid), "%d", broker.pid);
	snprintf(spawner, sizeof(spawner), "%d", broker.pid + 1);
	assert_true(strlen(words) > 500);
	for (const char *p = words; *p; p++)
		assert_true(*p == '\n' || ((unsigned char)*p >= 0x20 && *p != 0x7f));
	if (strstr(words, pid) || strstr(words, spawner) || strstr(words, broker.dir) || strstr(words, "/tmp") ||
	    strstr(words, "/proc/") || strstr(words, "libexec") || strstr(words, "0x"))
		fail_msg("an error tells too much:\n%s", words);
}

/* ---- C12, S01: ends ---- */

static void test_client_dies(void **state)
{
	char path[300], so[400];
	struct test_package p = {.so_path = so};

	(void)state;
	snprintf(so, sizeof(so), "%s/loop.3.so", paths.models);
	snprintf(path, sizeof(path), "%s/loop.pt2", broker.dir);
	assert_int_equal(test_package_write(path, &p), 0);
	for (int i = 0; i < 3; i++) {
		int ready[2];
		char byte;
		pid_t pid;

		assert_int_equal(pipe(ready), 0);
		pid = fork();
		if (pid == 0) {
			static const int64_t size = 16;
			struct pt2box_error e;
			struct pt2box_model *m;
			struct pt2box_run *run;
			struct pt2box_tensor *t;
			struct pt2box *c;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (pt2box_open(broker.socket, &c, &e) || pt2box_load_path(c, path, NULL, &m, &e) ||
			    pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, &size, &t, &e))
				_exit(1);
			*(float *)pt2box_tensor_get_info(t)->data = 666;
			if (pt2box_run_start(m, &t, 1, NULL, &run, &e))
				_exit(1);
			(void)!write(ready[1], "r", 1);
			for (;;)
				pause();
		}
		close(ready[1]);
		assert_int_equal(read(ready[0], &byte, 1), 1);
		usleep(20000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(ready[0]);
	}
	unlink(path);
}

/* All that descends from @pid. */
static bool runs_under(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	return access(path, F_OK) == 0;
}

static void test_broker_dies(void **state)
{
	struct test_broker second;
	struct pt2box_error e;
	struct pt2box_model *m;
	struct pt2box *c;
	char path[400], *ps;
	int pids[8] = {0}, n = 0;

	(void)state;
	assert_int_equal(test_broker_start(&second, paths.programs), 0);
	snprintf(path, sizeof(path), "%s/model.pt2", paths.honest);
	assert_int_equal(pt2box_open(second.socket, &c, &e), PT2BOX_OK);
	assert_int_equal(pt2box_load_path(c, path, NULL, &m, &e), PT2BOX_OK);
	assert_int_equal(pt2box_ps(c, &ps, &e), PT2BOX_OK);
	for (char *at = ps; n < 8 && (at = strstr(at, "\"pid\":")) != NULL; at++)
		if (sscanf(at, "\"pid\":%d", &pids[n]) == 1 && pids[n] > 0 && pids[n] != getpid())
			n++; /* not this client's own */
	assert_true(n >= 5); /* broker, spawner, warden, template, worker */
	kill(second.pid, SIGKILL);
	for (long until = test_now_ms() + 1000 * (CHECK_SANITIZED ? 5 : 1);; usleep(5000)) {
		int left = 0;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		for (int i = 0; i < n; i++)
			left += runs_under(pids[i]);
		if (!left)
			break;
		if (test_now_ms() > until)
			fail_msg("%d of %d processes are left a second after the broker", left, n);
	}
	pt2box_free_text(ps);
	pt2box_unload(m);
	pt2box_close(c);
	assert_int_not_equal(access(second.socket, F_OK), 0);
	test_remove_tree(second.dir);
}

/* ---- S02 ---- */

static void test_crash_cycles(void **state)
{
	long before, after;
	const char *why;

	(void)state;
	why = test_crash_n_times(broker.socket, broker.dir, paths.models, 16, NULL); /* whatever is allocated once */
	before = test_broker_rss_kib(&broker);
	if (!why)
		why = test_crash_n_times(broker.socket, broker.dir, paths.models, 80, NULL);
	after = test_broker_rss_kib(&broker);
	if (why)
		fail_msg("%s", why);
	print_message("    80 crashes: the broker has %ld KiB, %ld before\n", after, before);
	assert_true(CHECK_SANITIZED || after - before < 512);
}

/* ---- S03, S04 ---- */

/* As a kernel without namespaces, or a container that forbids them, answers. */
static void no_namespaces(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
		_exit(99);
}

static void test_missing_layer(void **state)
{
	char program[400], socket_path[200], text[600] = "";
	int out[2], status = 0;
	ssize_t n, used = 0;
	pid_t pid;

	(void)state;
	snprintf(program, sizeof(program), "%s/pt2boxd", paths.programs);
	snprintf(socket_path, sizeof(socket_path), "%s/never", broker.dir);
	assert_int_equal(pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		dup2(out[1], 2);
		closefrom(3);
		no_namespaces();
		execl(program, "pt2boxd", "--socket", socket_path, NULL);
		_exit(98);
	}
	close(out[1]);
	while ((n = read(out[0], text + used, sizeof(text) - 1 - (size_t)used)) > 0)
		used += n;
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != PT2BOX_LAYER_MISSING || !strstr(text, "LAYER_MISSING"))
		fail_msg("status 0x%x: %s", (unsigned)status, text);
	assert_int_not_equal(access(socket_path, F_OK), 0);
}

/* Files that would allow everything lie where the broker is started: they are not looked at. */
static void test_policies_beside(void **state)
{
	static const char *const names[] = {"base", "worker-load", "worker-run", "worker-steady", "intake"};
	struct pt2box_error e;
	struct pt2box_model *m;
	struct pt2box *c;
	struct test_broker second;
	struct test_package p = {.constants = false};
	char programs[4096], here[4096], path[400], so[4400];

	(void)state;
	assert_non_null(realpath(paths.programs, programs));
	assert_non_null(realpath(paths.models, here));
	snprintf(so, sizeof(so), "%s/open_file.0.so", here);
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(path, sizeof(path), "%s/policies", broker.dir);
	assert_int_equal(mkdir(path, 0755), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/policies/%s.policy", broker.dir, names[i]);
		fd = open(path, O_WRONLY | O_CREAT, 0644);
		assert_int_equal(write(fd, "default allow\n", 14), 14);
		close(fd);
	}
	snprintf(path, sizeof(path), "%s/p.pt2", broker.dir);
	p.so_path = so;
	assert_int_equal(test_package_write(path, &p), 0);
	assert_int_equal(chdir(broker.dir), 0);
	assert_int_equal(test_broker_start(&second, programs), 0);
	assert_int_equal(pt2box_open(second.socket, &c, &e), PT2BOX_OK);
	assert_int_equal(pt2box_load_path(c, path, NULL, &m, &e), PT2BOX_MODEL_KILLED);
	pt2box_close(c);
	assert_int_equal(chdir(here), 0);
	kill(second.pid, SIGTERM);
	waitpid(second.pid, NULL, 0);
	test_remove_tree(second.dir);
}

/* ---- set-up ---- */

static int begin(void **state)
{
	(void)state;
	alarm(140);
	words[0] = '\0';
	if (test_broker_start(&broker, paths.programs) != 0)
		return -1;
	if (test_canary_start(&canary, &broker, paths.honest) != 0) {
		test_broker_stop(&broker);
		return -1;
	}
	test_broker_resources(&broker, &base);
	return 0;
}

static int end(void **state)
{
	int left;

	(void)state;
	if (!canary.state)
		return 1; /* set-up failed, and has said why */
	test_canary_stop(&canary);
	left = test_broker_stop(&broker);
	test_remove_tree(broker.dir);
	alarm(0);
	return left;
}

static int run_all(const char *group)
{
#define UNHARMED(test) cmocka_unit_test_teardown(test, unharmed)
	const struct CMUnitTest tests[] = {
		UNHARMED(test_bombs),	    UNHARMED(test_frames),	    UNHARMED(test_descriptor_flood),
		UNHARMED(test_wrong_descriptors), UNHARMED(test_sparse),    UNHARMED(test_file_that_changes), UNHARMED(test_file_that_is_gone),
		UNHARMED(test_archives),    UNHARMED(test_guesses),	    UNHARMED(test_names),
		UNHARMED(test_client_dies), UNHARMED(test_crash_cycles),    UNHARMED(test_words),
		cmocka_unit_test(test_broker_dies), cmocka_unit_test(test_missing_layer), cmocka_unit_test(test_policies_beside),
	};

	return cmocka_run_group_tests_name(group, tests, begin, end);
}

static int as_ordinary_user(void)
{
	return run_all("as an ordinary user");
}

int main(void)
{
	int bad;

	test_paths_init(&paths);
	if (geteuid() != 0)
		return run_all("as this user");
	bad = run_all("as root");
	return test_as_ordinary_user(&paths, as_ordinary_user) || bad;
}
