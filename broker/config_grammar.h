/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of the configuration file, for broker/config.c only. */
#ifndef PT2BOX_BROKER_CONFIG_GRAMMAR_H
#define PT2BOX_BROKER_CONFIG_GRAMMAR_H

#include <stdarg.h>
#include <stdio.h>

#include <confuse.h>

#include "broker/config.h"

/* In the order of their bits. */
extern const char *const pb_profile_names[], *const pb_backend_names[];

/* libconfuse takes the end of a file for the end of its sections. This key, behind the text, tells the two apart. */
#define PB_CONFIG_END "end-of-configuration"

/* With all checks; cfg_free(). NULL: no memory. */
cfg_t *pb_config_grammar(void);

/* A number, with K, M, G or T behind it if it is @bytes. */
bool pb_config_number(const char *text, bool bytes, uint64_t *ret);
/* Of a user or group, by number or name. */
bool pb_config_id(const char *text, bool group, uint32_t *ret);
bool pb_config_mode(const char *text, unsigned *ret);
/* -1: not in the list, which ends with NULL. */
int pb_config_index(const char *text, const char *const *names);

#endif
