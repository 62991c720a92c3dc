/* SPDX-License-Identifier: Apache-2.0 */
/* See safetensors_dtype.h. */
#include "ipc/safetensors_dtype.h"

#include <stddef.h>
#include <string.h>

#include "include/pt2box.h"

static const struct {
	const char *name;
	int32_t dtype;
} rows[] = {
	{"BOOL", PT2BOX_BOOL},	     {"U8", PT2BOX_UINT8},	{"I8", PT2BOX_INT8},
	{"I16", PT2BOX_INT16},	     {"U16", PT2BOX_UINT16},	{"I32", PT2BOX_INT32},
	{"U32", PT2BOX_UINT32},	     {"I64", PT2BOX_INT64},	{"U64", PT2BOX_UINT64},
	{"F16", PT2BOX_FLOAT16},     {"BF16", PT2BOX_BFLOAT16}, {"F32", PT2BOX_FLOAT32},
	{"F64", PT2BOX_FLOAT64},     {"C64", PT2BOX_COMPLEX64}, {"F8_E5M2", PT2BOX_FLOAT8_E5M2},
	{"F8_E4M3", PT2BOX_FLOAT8_E4M3FN},
	/* Ours alone, for constants on their way from a client to a broker. */
	{"C32", PT2BOX_COMPLEX32},   {"C128", PT2BOX_COMPLEX128},
};

int32_t pb_dtype_from_safetensors(const char *name)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].dtype;
	return -1;
}

const char *pb_dtype_safetensors_name(int32_t dtype)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].dtype == dtype)
			return rows[i].name;
	return NULL;
}

bool pb_dtype_in_safetensors(int32_t dtype)
{
	return dtype != PT2BOX_COMPLEX32 && dtype != PT2BOX_COMPLEX128 && pb_dtype_safetensors_name(dtype);
}
