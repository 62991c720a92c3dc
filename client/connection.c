/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: opened, closed, and not to be used by a forked child. What is said over them is in
 * calls.c. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/internal.h"

#define HELLO_MS 30000

/* ---- fork ---- */

/*
 * A page that the kernel clears in a forked child, however it was forked. In it: the number of this
 * process among its forefathers that used the library.
 */
static _Atomic uint32_t *fork_word;
static uint32_t processes;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void make_fork_word(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	if (madvise(p, 4096, MADV_WIPEONFORK) != 0)
		munmap(p, 4096);
	else
		fork_word = p;
}

static uint32_t this_process(void)
{
	return fork_word ? atomic_load_explicit(fork_word, memory_order_relaxed)
			 : (uint32_t)getpid();
}

static uint32_t enter_process(void)
{
	uint32_t none = 0;

	pthread_once(&fork_once, make_fork_word);
	if (fork_word && this_process() == 0)
		atomic_compare_exchange_strong(fork_word, &none, ++processes);
	return this_process();
}

bool pb_connection_is_ours(const struct pt2box *c)
{
	return this_process() == c->generation;
}

pb_status pb_connection_check(struct pt2box *c, struct pt2box_error *err)
{
	if (!pb_connection_is_ours(c))
		return pb_error_set(err, PT2BOX_USAGE,
				    "the connection belongs to the parent process: open one here");
	if (c->sock < 0)
		return pb_error_set(err, PT2BOX_BROKER_LOST, "the connection is closed");
	if (atomic_load_explicit(&c->is_lost, memory_order_relaxed))
		return pb_connection_poll(c, err);
	return PT2BOX_OK;
}

/* ---- open and close ---- */

static pb_status hello(struct pt2box *c, struct pt2box_error *err)
{
	struct pb_msg_hello m = {.version = PB_PROTOCOL_VERSION};
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	struct pb_call call;
	int n;

	pb_text_escape(m.program, sizeof(m.program), program_invocation_short_name,
		       strlen(program_invocation_short_name));
	pb_call_begin(c, &call, PB_MSG_hello_ok);
	if (pb_send(c->sock, PB_MSG_hello, &m, NULL, 0, NULL) == PT2BOX_OK) {
		do
			n = poll(&p, 1, HELLO_MS);
		while (n < 0 && errno == EINTR);
		if (n == 0) {
			pb_call_end(c, &call);
			return pb_error_set(err, PT2BOX_BROKER_LOST, "the broker does not answer");
		}
	}
	return pb_call_await(c, &call, err);
}

pb_status pb_connection_new(int sock_take, struct pb_embedded broker_take, struct pt2box **ret,
			    struct pt2box_error *err)
{
	struct pt2box *c = calloc(1, sizeof(*c));
	pb_status st;

	if (!c) {
		close(sock_take);
		pb_embedded_end(&broker_take);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a connection");
	}
	c->refs = 1;
	c->sock = sock_take;
	c->broker = broker_take;
	c->generation = enter_process();
	c->next_request = 1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	st = hello(c, err);
	if (st) {
		pt2box_close(c);
		return st;
	}
	*ret = c;
	return PT2BOX_OK;
}

static pb_status connect_to(const char *path, int *ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(a.sun_path))
		return pb_error_set(err, PT2BOX_USAGE, "the socket's path is too long: %s", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return pb_error_sys(err, "socket");
	while (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
		pb_status st;

		if (errno == EINTR)
			continue;
		st = pb_error_sys(err, "cannot connect to the broker at %s", path);
		if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTSOCK ||
		    errno == EPROTOTYPE)
			st = PT2BOX_BROKER_LOST;
		else if (errno == EACCES || errno == EPERM)
			st = PT2BOX_DENIED;
		if (err)
			err->status = st;
		return st;
	}
	*ret = pb_take_fd(&fd);
	return PT2BOX_OK;
}

enum pt2box_status pt2box_open(const char *socket_path, struct pt2box **ret,
			       struct pt2box_error *err)
{
	struct pb_embedded broker = {.pidfd = -1};
	int sock;
	pb_status st;

	pb_error_clear(err);
	st = socket_path ? connect_to(socket_path, &sock, err)
			 : pb_embedded_start(&sock, &broker, err);
	if (st)
		return st;
	return pb_connection_new(sock, broker, ret, err);
}

void pt2box_close(struct pt2box *c)
{
	bool ours;

	if (!c)
		return;
	ours = pb_connection_is_ours(c);
	if (ours)
		pb_async_end(c);
	pb_close_fd(&c->sock);
	if (ours)
		pb_embedded_end(&c->broker);
	else
		pb_close_fd(&c->broker.pidfd); /* the parent's child, not ours */
	pb_connection_unref(c);
}

void pb_connection_unref(struct pt2box *c)
{
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
}
