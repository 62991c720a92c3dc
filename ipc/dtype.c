/* SPDX-License-Identifier: Apache-2.0 */
/* Element types: sizes and names. The numbers are PyTorch's. */
#include <string.h>

#include "include/pt2box.h"

struct row {
	int32_t dtype;
	uint8_t size;
	const char *name;
};

static const struct row rows[] = {
	{PT2BOX_UINT8, 1, "uint8"},
	{PT2BOX_INT8, 1, "int8"},
	{PT2BOX_INT16, 2, "int16"},
	{PT2BOX_INT32, 4, "int32"},
	{PT2BOX_INT64, 8, "int64"},
	{PT2BOX_FLOAT16, 2, "float16"},
	{PT2BOX_FLOAT32, 4, "float32"},
	{PT2BOX_FLOAT64, 8, "float64"},
	{PT2BOX_COMPLEX32, 4, "complex32"},
	{PT2BOX_COMPLEX64, 8, "complex64"},
	{PT2BOX_COMPLEX128, 16, "complex128"},
	{PT2BOX_BOOL, 1, "bool"},
	{PT2BOX_BFLOAT16, 2, "bfloat16"},
	{PT2BOX_FLOAT8_E5M2, 1, "float8_e5m2"},
	{PT2BOX_FLOAT8_E4M3FN, 1, "float8_e4m3fn"},
	{PT2BOX_UINT16, 2, "uint16"},
	{PT2BOX_UINT32, 4, "uint32"},
	{PT2BOX_UINT64, 8, "uint64"},
};

static const struct row *find(int32_t dtype)
{
	/* Most numbers are their own index. */
	if (dtype >= 0 && dtype <= PT2BOX_BOOL)
		return &rows[dtype];
	for (size_t i = PT2BOX_BOOL + 1; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].dtype == dtype)
			return &rows[i];
	return NULL;
}

size_t pt2box_dtype_size(int32_t dtype)
{
	const struct row *r = find(dtype);

	return r ? r->size : 0;
}

const char *pt2box_dtype_name(int32_t dtype)
{
	const struct row *r = find(dtype);

	return r ? r->name : "?";
}

int32_t pt2box_dtype_from_name(const char *name)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].dtype;
	return -1;
}
