/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets and descriptors: SOCK_SEQPACKET pairs, messages with fds, memfds and their seals. Every descriptor is
 * close-on-exec at birth. An `int fd` argument is borrowed unless the name says _take.
 */
#ifndef PT2BOX_IPC_SOCKET_H
#define PT2BOX_IPC_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "ipc/messages.h"

#define PB_CLEANUP(f) __attribute__((cleanup(f)))

static inline void pb_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline int pb_take_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/* Descriptors that came with a message; owned. */
struct pb_fds {
	int fd[PB_FDS_MAX];
	size_t n;
};
#define PB_FDS_INIT {{-1, -1, -1, -1, -1, -1, -1, -1}, 0}
void pb_fds_close(struct pb_fds *fds);
/*
 * How received descriptors are closed, close(2) if NULL: that one may wait for as long as the program likes that serves
 * the file (FUSE), and cannot be killed meanwhile.
 */
extern void (*pb_close_received)(int fd);
/* Move entry i out. */
int pb_fds_take(struct pb_fds *fds, size_t i);

/* A connected pair of SOCK_SEQPACKET sockets. */
PB_CHECK pb_status pb_socket_pair(int ret[2], struct pt2box_error *err);

/*
 * Send one message. @fds are borrowed. Does not block when the socket is non-blocking: LIMIT if the peer's buffer is
 * full, BROKER_LOST if the peer is gone.
 */
PB_CHECK pb_status pb_send(int sock, enum pb_msg_id id, const void *msg, const int *fds, size_t n_fds,
			   struct pt2box_error *err);

/*
 * Receive and decode one message into @buf (bin fields point into it).
 * OK; BROKER_LOST: end of file; NOT_FOUND: nothing there now (non-blocking sockets); PROTOCOL: truncated or malformed,
 * all fds closed; SYSTEM. @nonblock adds MSG_DONTWAIT.
 */
struct pb_rx {
	uint8_t frame[PB_FRAME_MAX];
	const struct pb_msg_row *row;
	union pb_msg msg;
	struct pb_fds fds;
};
PB_CHECK pb_status pb_recv(int sock, enum pb_role from, enum pb_role to, enum pb_state state, bool nonblock,
			   struct pb_rx *rx, struct pt2box_error *err);
/* The same with write(2) instead of sendmsg(2): for processes whose filter allows no sendmsg. No fds. */
PB_CHECK pb_status pb_write(int sock, enum pb_msg_id id, const void *msg, struct pt2box_error *err);

/* A memfd of @bytes bytes, sealed against growing and shrinking. */
PB_CHECK pb_status pb_memfd(const char *name, uint64_t bytes, int *ret_fd, struct pt2box_error *err);
/* An empty one to be filled by another process, then sealed. */
PB_CHECK pb_status pb_memfd_unsealed(const char *name, int *ret_fd, struct pt2box_error *err);
/* Seal against everything: contents never change again. Fails while somebody has it mapped writable. */
PB_CHECK pb_status pb_memfd_seal(int fd, struct pt2box_error *err);
/* Give a descriptor the number @to, close-on-exec; false: @from stays. */
bool pb_fd_move(int from, int to);
/* A second, read-only description of the same memory. */
PB_CHECK pb_status pb_fd_readonly(int fd, int *ret_fd, struct pt2box_error *err);
/* A sealed memfd with these bytes. */
PB_CHECK pb_status pb_memfd_from(const char *name, const void *data, size_t bytes, int *ret_fd,
				 struct pt2box_error *err);
/* Whole contents of a memfd by pread, at most max bytes; malloc'd, with a NUL after the end. */
PB_CHECK pb_status pb_fd_slurp(int fd, uint64_t max, uint8_t **ret, size_t *ret_bytes, struct pt2box_error *err);

#endif
