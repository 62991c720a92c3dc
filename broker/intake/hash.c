/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See hash.h. The old interface of libcrypto on purpose: EVP first loads providers and a configuration file (0.7 ms, and
 * this process can open no files).
 */
#define OPENSSL_API_COMPAT 0x10100000L
#include "broker/intake/hash.h"

#include <openssl/sha.h>
#include <stdlib.h>

#include "broker/intake/directory.h"

#define STEP (256u << 10)

void pb_hash_memory(const uint8_t *data, uint64_t bytes, uint8_t ret[32])
{
	SHA256_CTX c;

	SHA256_Init(&c);
	SHA256_Update(&c, data, bytes);
	SHA256_Final(ret, &c);
}

pb_status pb_hash_file(int fd, uint64_t bytes, uint8_t ret[32], struct pt2box_error *err)
{
	uint8_t *buf = malloc(STEP);
	pb_status st = PT2BOX_OK;
	SHA256_CTX c;

	if (!buf)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to read with");
	SHA256_Init(&c);
	for (uint64_t at = 0; at < bytes && !st; at += STEP) {
		uint64_t n = bytes - at < STEP ? bytes - at : STEP;

		st = pb_read_at(fd, at, buf, n, err);
		SHA256_Update(&c, buf, n);
	}
	SHA256_Final(ret, &c);
	free(buf);
	return st;
}
