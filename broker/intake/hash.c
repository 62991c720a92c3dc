/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See hash.h. The old interface of libcrypto on purpose: EVP first loads providers and a configuration file (0.7 ms, and
 * this process can open no files).
 */
#define OPENSSL_API_COMPAT 0x10100000L
#include "broker/intake/hash.h"

#include <openssl/sha.h>

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct pb_hash), "the state must fit");

static SHA256_CTX *context(struct pb_hash *h)
{
	return (SHA256_CTX *)(void *)h->state;
}

void pb_hash_begin(struct pb_hash *h)
{
	SHA256_Init(context(h));
}

void pb_hash_add(struct pb_hash *h, const void *data, uint64_t bytes)
{
	SHA256_Update(context(h), data, bytes);
}

void pb_hash_end(struct pb_hash *h, uint8_t ret[32])
{
	SHA256_Final(ret, context(h));
}
