/* SPDX-License-Identifier: Apache-2.0 */
/* See raw.h. */
#include "tests/lib/raw.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct pb_rx raw_rx;

int raw_connect(const char *socket_path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strncpy(a.sun_path, socket_path, sizeof(a.sun_path) - 1);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

int raw_open(const char *socket_path)
{
	struct pb_msg_hello hello = {.version = PB_PROTOCOL_VERSION, .program = "test"};
	int fd = raw_connect(socket_path);

	if (fd < 0)
		return -1;
	if (pb_send(fd, PB_MSG_hello, &hello, NULL, 0, NULL) == PT2BOX_OK &&
	    pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &raw_rx, NULL) == PT2BOX_OK)
		return fd;
	close(fd);
	return -1;
}

int raw_answer_fds(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	pb_status st;

	if (poll(&p, 1, ms) != 1)
		return 0;
	st = pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, true, &raw_rx, NULL);
	return st == PT2BOX_BROKER_LOST ? -1 : st ? 0 : raw_rx.row->id;
}

int raw_answer(int fd, int ms)
{
	int id = raw_answer_fds(fd, ms);

	if (id > 0)
		pb_fds_close(&raw_rx.fds);
	return id;
}

void raw_send_load(int fd, uint64_t request, int package, uint64_t memory_bytes)
{
	struct pb_msg_load m = {.request = request,
				.backend = "auto",
				.profile = "default",
				.runners = 1,
				.device = -1,
				.memory_bytes = memory_bytes};
	struct pt2box_error err = {0};

	/* A user may have only RLIMIT_NOFILE descriptors on their way: 1024 as a rule. Then the broker must take some first. */
	while (pb_send(fd, PB_MSG_load, &m, &package, 1, &err) == PT2BOX_SYSTEM && err.sys_errno == ETOOMANYREFS)
		usleep(1000);
}

int raw_junk(void)
{
	int fd = memfd_create("junk", MFD_CLOEXEC);

	(void)!write(fd, "no package", 10);
	return fd;
}
