/* SPDX-License-Identifier: Apache-2.0 */
/* Messages and descriptors over SOCK_SEQPACKET sockets; memfds. See socket.h. */
#include "ipc/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

void (*pb_close_received)(int fd);

static void drop(int fd)
{
	if (fd >= 0 && pb_close_received)
		pb_close_received(fd);
	else if (fd >= 0)
		close(fd);
}

void pb_fds_close(struct pb_fds *fds)
{
	for (size_t i = 0; i < fds->n; i++)
		drop(pb_take_fd(&fds->fd[i]));
	fds->n = 0;
}

int pb_fds_take(struct pb_fds *fds, size_t i)
{
	return i < fds->n ? pb_take_fd(&fds->fd[i]) : -1;
}

pb_status pb_socket_pair(int ret[2], struct pt2box_error *err)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) != 0)
		return pb_error_sys(err, "socketpair");
	return PT2BOX_OK;
}

static pb_status send_status(struct pt2box_error *err)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return pb_error_set(err, PT2BOX_LIMIT, "the peer does not read");
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return pb_error_set(err, PT2BOX_BROKER_LOST, "the peer is gone");
	return pb_error_sys(err, "send");
}

static pb_status encode(enum pb_msg_id id, const void *msg, uint8_t *buf, size_t cap, size_t *len,
			struct pt2box_error *err)
{
	const struct pb_msg_row *row = pb_msg_row(id);

	if (!row || pb_msg_encode(row, msg, buf, cap, len))
		return pb_error_set(err, PT2BOX_INTERNAL, "a message that cannot be sent: %s", row ? row->name : "?");
	return PT2BOX_OK;
}

pb_status pb_send(int sock, enum pb_msg_id id, const void *msg, const int *fds, size_t n_fds, struct pt2box_error *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * PB_FDS_MAX)];
		struct cmsghdr align;
	} control;
	uint8_t frame[16384];
	struct iovec iov = {.iov_base = frame};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	pb_status st = encode(id, msg, frame, sizeof(frame), &iov.iov_len, err);

	if (st)
		return st;
	if (n_fds > PB_FDS_MAX)
		return pb_error_set(err, PT2BOX_INTERNAL, "too many descriptors");
	if (n_fds) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	for (;;) {
		if (sendmsg(sock, &h, MSG_NOSIGNAL) >= 0)
			return PT2BOX_OK;
		if (errno != EINTR)
			return send_status(err);
	}
}

pb_status pb_write(int sock, enum pb_msg_id id, const void *msg, struct pt2box_error *err)
{
	uint8_t frame[4096];
	size_t len;
	pb_status st = encode(id, msg, frame, sizeof(frame), &len, err);

	if (st)
		return st;
	for (;;) {
		if (write(sock, frame, len) >= 0)
			return PT2BOX_OK;
		if (errno != EINTR)
			return send_status(err);
	}
}

/* Descriptors out of the control data, into the owning list; false if there were more than fit. */
static bool collect_fds(struct msghdr *h, struct pb_fds *fds)
{
	bool fits = true;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (fds->n < PB_FDS_MAX) {
				fds->fd[fds->n++] = fd;
			} else {
				drop(fd);
				fits = false;
			}
		}
	}
	return fits;
}

pb_status pb_recv(int sock, enum pb_role from, enum pb_role to, enum pb_state state, bool nonblock, struct pb_rx *rx,
		  struct pt2box_error *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * PB_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = rx->frame, .iov_len = sizeof(rx->frame)};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	bool fits;
	ssize_t n;
	pb_status st;

	rx->fds = (struct pb_fds)PB_FDS_INIT;
	rx->row = NULL;
	do
		n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC | (nonblock ? MSG_DONTWAIT : 0));
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return PT2BOX_NOT_FOUND;
	if (n < 0 && errno != ECONNRESET)
		return pb_error_sys(err, "receive");
	/* The end of the stream, or an empty packet, which looks the same but may bring descriptors. */
	fits = n < 0 || collect_fds(&h, &rx->fds);
	if (n <= 0) {
		pb_fds_close(&rx->fds);
		return pb_error_set(err, PT2BOX_BROKER_LOST, "the peer is gone");
	}
	if (!fits || (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		st = pb_error_set(err, PT2BOX_PROTOCOL, "a message that is too long");
	else
		st = pb_msg_decode(rx->frame, (size_t)n, from, to, state, rx->fds.n, &rx->row, &rx->msg, err);
	if (st)
		pb_fds_close(&rx->fds);
	return st;
}

/* ---- memory ---- */

pb_status pb_memfd_unsealed(const char *name, int *ret_fd, struct pt2box_error *err)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return pb_error_sys(err, "memfd");
	*ret_fd = fd;
	return PT2BOX_OK;
}

pb_status pb_memfd(const char *name, uint64_t bytes, int *ret_fd, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	pb_status st = pb_memfd_unsealed(name, &fd, err);

	if (st)
		return st;
	if (ftruncate(fd, (off_t)bytes) != 0)
		return pb_error_sys(err, "memory of %llu bytes", (unsigned long long)bytes);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return pb_error_sys(err, "seal");
	*ret_fd = pb_take_fd(&fd);
	return PT2BOX_OK;
}

pb_status pb_memfd_seal(int fd, struct pt2box_error *err)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return pb_error_sys(err, "seal");
	return PT2BOX_OK;
}

pb_status pb_fd_readonly(int fd, int *ret_fd, struct pt2box_error *err)
{
	char path[40];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	if (ro < 0)
		return pb_error_sys(err, "a read-only descriptor");
	*ret_fd = ro;
	return PT2BOX_OK;
}

pb_status pb_memfd_from(const char *name, const void *data, size_t bytes, int *ret_fd, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	const char *p = data;
	pb_status st = pb_memfd_unsealed(name, &fd, err);

	if (st)
		return st;
	while (bytes) {
		ssize_t n = write(fd, p, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pb_error_sys(err, "memfd");
		p += n;
		bytes -= (size_t)n;
	}
	st = pb_memfd_seal(fd, err);
	if (st)
		return st;
	return pb_fd_readonly(fd, ret_fd, err);
}

pb_status pb_fd_slurp(int fd, uint64_t max, uint8_t **ret, size_t *ret_bytes, struct pt2box_error *err)
{
	struct stat sb;
	uint8_t *buf;
	size_t got = 0;

	if (fstat(fd, &sb) != 0)
		return pb_error_sys(err, "fstat");
	if (sb.st_size < 0 || (uint64_t)sb.st_size > max)
		return pb_error_set(err, PT2BOX_LIMIT, "%lld bytes, at most %llu are taken", (long long)sb.st_size,
				    (unsigned long long)max);
	buf = malloc((size_t)sb.st_size + 1);
	if (!buf)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for %lld bytes", (long long)sb.st_size);
	while (got < (size_t)sb.st_size) {
		ssize_t n = pread(fd, buf + got, (size_t)sb.st_size - got, (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			free(buf);
			return pb_error_sys(err, "read");
		}
		if (n == 0)
			break; /* it has shrunk: what is there counts */
		got += (size_t)n;
	}
	buf[got] = '\0';
	*ret = buf;
	*ret_bytes = got;
	return PT2BOX_OK;
}

bool pb_fd_move(int from, int to)
{
	if (from == to)
		return true;
	if (dup3(from, to, O_CLOEXEC) < 0)
		return false;
	close(from);
	return true;
}
