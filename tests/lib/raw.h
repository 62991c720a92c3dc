/* SPDX-License-Identifier: Apache-2.0 */
/* A client that speaks the socket by hand: what libpt2box would never send. */
#ifndef TESTS_LIB_RAW_H
#define TESTS_LIB_RAW_H

#include <stdint.h>

#include "ipc/socket.h"

extern struct pb_rx raw_rx; /* the last message that came */

/* Connect; -1 if that is refused. */
int raw_connect(const char *socket_path);
/* Connect and say hello; -1 if either is refused. */
int raw_open(const char *socket_path);
/* One message of the broker within @ms, in raw_rx, its descriptors closed: its id, 0 if none came, -1 at the end. */
int raw_answer(int fd, int ms);
/* The same, descriptors left in raw_rx.fds. */
int raw_answer_fds(int fd, int ms);
void raw_send_load(int fd, uint64_t request, int package, uint64_t memory_bytes);
/* A memfd that is no package. */
int raw_junk(void);

#endif
