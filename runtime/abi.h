/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the C ABI that is no operator: torch 2.13.0's shim.h, shim_deprecated.h and
 * c_shim_aten.h as far as they make sense on a CPU. runtime/shims.def has them all, and says what
 * is missing. Every function returns 0, or 1 with the reason in
 * torch_exception_get_what_without_backtrace().
 */
#ifndef PT2BOX_RUNTIME_ABI_H
#define PT2BOX_RUNTIME_ABI_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CONST(name after aoti_torch_, number) */
#define PB_ABI_CONSTANTS(CONST)                         \
	CONST(device_type_cpu, 0)                       \
	CONST(device_type_cuda, 1)                      \
	CONST(device_type_xpu, 12)                      \
	CONST(device_type_mps, 13)                      \
	CONST(device_type_meta, 14)                     \
	CONST(device_type_privateuse1, 20)              \
	CONST(dtype_uint8, PB_RT_U8)                    \
	CONST(dtype_int8, PB_RT_I8)                     \
	CONST(dtype_int16, PB_RT_I16)                   \
	CONST(dtype_int32, PB_RT_I32)                   \
	CONST(dtype_int64, PB_RT_I64)                   \
	CONST(dtype_float16, PB_RT_F16)                 \
	CONST(dtype_float32, PB_RT_F32)                 \
	CONST(dtype_float64, PB_RT_F64)                 \
	CONST(dtype_complex32, PB_RT_C32)               \
	CONST(dtype_complex64, PB_RT_C64)               \
	CONST(dtype_complex128, PB_RT_C128)             \
	CONST(dtype_bool, PB_RT_BOOL)                   \
	CONST(dtype_bfloat16, PB_RT_BF16)               \
	CONST(dtype_float8_e5m2, PB_RT_F8_E5M2)         \
	CONST(dtype_float8_e4m3fn, PB_RT_F8_E4M3FN)     \
	CONST(dtype_float8_e5m2fnuz, PB_RT_F8_E5M2FNUZ) \
	CONST(dtype_float8_e4m3fnuz, PB_RT_F8_E4M3FNUZ) \
	CONST(dtype_float8_e8m0fnu, PB_RT_F8_E8M0FNU)   \
	CONST(dtype_float4_e2m1fn_x2, PB_RT_F4X2)       \
	CONST(dtype_uint16, PB_RT_U16)                  \
	CONST(dtype_uint32, PB_RT_U32)                  \
	CONST(dtype_uint64, PB_RT_U64)                  \
	CONST(layout_strided, 0)                        \
	CONST(layout_sparse_coo, 1)                     \
	CONST(layout_sparse_csr, 2)                     \
	CONST(layout__mkldnn, 3)                        \
	CONST(layout_sparse_csc, 4)                     \
	CONST(layout_sparse_bsr, 5)                     \
	CONST(layout_sparse_bsc, 6)                     \
	CONST(layout_jagged, 7)                         \
	CONST(memory_format_contiguous_format, 0)       \
	CONST(memory_format_preserve_format, 1)         \
	CONST(memory_format_channels_last, 2)           \
	CONST(memory_format_channels_last_3d, 3)

/* Complex numbers are passed by value, as two floats in one register or two doubles in two. */
#define PB_ABI_ITEMS(ITEM)                   \
	ITEM(float16, uint16_t, PB_RT_F16)   \
	ITEM(bfloat16, uint16_t, PB_RT_BF16) \
	ITEM(float32, float, PB_RT_F32)      \
	ITEM(float64, double, PB_RT_F64)     \
	ITEM(uint8, uint8_t, PB_RT_U8)       \
	ITEM(uint16, uint16_t, PB_RT_U16)    \
	ITEM(uint32, uint32_t, PB_RT_U32)    \
	ITEM(uint64, uint64_t, PB_RT_U64)    \
	ITEM(int8, int8_t, PB_RT_I8)         \
	ITEM(int16, int16_t, PB_RT_I16)      \
	ITEM(int32, int32_t, PB_RT_I32)      \
	ITEM(int64, int64_t, PB_RT_I64)      \
	ITEM(bool, bool, PB_RT_BOOL)         \
	ITEM(complex64, struct pb_complex64, PB_RT_C64)
#define PB_ABI_SCALARS(SCALAR)                            \
	SCALAR(float32, float, PB_RT_F32)                 \
	SCALAR(float64, double, PB_RT_F64)                \
	SCALAR(uint8, uint8_t, PB_RT_U8)                  \
	SCALAR(uint16, uint16_t, PB_RT_U16)               \
	SCALAR(uint32, uint32_t, PB_RT_U32)               \
	SCALAR(uint64, uint64_t, PB_RT_U64)               \
	SCALAR(int8, int8_t, PB_RT_I8)                    \
	SCALAR(int16, int16_t, PB_RT_I16)                 \
	SCALAR(int32, int32_t, PB_RT_I32)                 \
	SCALAR(int64, int64_t, PB_RT_I64)                 \
	SCALAR(bool, bool, PB_RT_BOOL)                    \
	SCALAR(complex64, struct pb_complex64, PB_RT_C64) \
	SCALAR(complex128, struct pb_complex128, PB_RT_C128)

struct pb_complex64 {
	float re, im;
};
struct pb_complex128 {
	double re, im;
};

typedef void *pb_ivalue;

#pragma GCC visibility push(default)

#define PB_ABI_DECLARE_CONST(name, number) int32_t aoti_torch_##name(void);
PB_ABI_CONSTANTS(PB_ABI_DECLARE_CONST)
#undef PB_ABI_DECLARE_CONST
uint64_t aoti_torch_abi_version(void);
size_t aoti_torch_dtype_element_size(int32_t dtype);

/* ---- getters: pointers live as long as the handle ---- */
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle t, void **ret);
AOTITorchError aoti_torch_get_storage_size(AtenTensorHandle t, int64_t *ret);
AOTITorchError aoti_torch_get_storage_numel(AtenTensorHandle t, int64_t *ret);
AOTITorchError aoti_torch_get_storage_offset(AtenTensorHandle t, int64_t *ret);
AOTITorchError aoti_torch_get_dim(AtenTensorHandle t, int64_t *ret);
AOTITorchError aoti_torch_get_numel(AtenTensorHandle t, int64_t *ret);
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle t, int64_t **ret);
AOTITorchError aoti_torch_get_strides(AtenTensorHandle t, int64_t **ret);
AOTITorchError aoti_torch_get_size(AtenTensorHandle t, int64_t d, int64_t *ret);
AOTITorchError aoti_torch_get_stride(AtenTensorHandle t, int64_t d, int64_t *ret);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle t, int32_t *ret);
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle t, int32_t *ret);
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle t, int32_t *ret);
AOTITorchError aoti_torch_get_layout(AtenTensorHandle t, int32_t *ret);
AOTITorchError aoti_torch_is_contiguous(AtenTensorHandle t, bool *ret);
AOTITorchError aoti_torch_is_defined(AtenTensorHandle t, bool *ret);
#define PB_ABI_DECLARE_ITEM(name, type, dtype) \
	AOTITorchError aoti_torch_item_##name(AtenTensorHandle t, type *ret);
PB_ABI_ITEMS(PB_ABI_DECLARE_ITEM)
#undef PB_ABI_DECLARE_ITEM

/* ---- making and ending handles; the caller owns what is returned ---- */
#define PB_ABI_DECLARE_SCALAR(name, type, dtype) \
	AOTITorchError aoti_torch_scalar_to_tensor_##name(type value, AtenTensorHandle *ret);
PB_ABI_SCALARS(PB_ABI_DECLARE_SCALAR)
#undef PB_ABI_DECLARE_SCALAR
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle t);
AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle t, AtenTensorHandle *ret);
AOTITorchError aoti_torch_new_uninitialized_tensor(AtenTensorHandle *ret);
AOTITorchError aoti_torch_assign_tensors(AtenTensorHandle src, AtenTensorHandle dst);
AOTITorchError aoti_torch_assign_tensors_out(AtenTensorHandle src, AtenTensorHandle *ret);
AOTITorchError aoti_torch_tensor_copy_(AtenTensorHandle src, AtenTensorHandle dst);
AOTITorchError aoti_torch_empty_strided(int64_t ndim, const int64_t *sizes, const int64_t *strides,
					int32_t dtype, int32_t device_type, int32_t device_index,
					AtenTensorHandle *ret);
AOTITorchError aoti_torch_empty_strided_pinned(int64_t ndim, const int64_t *sizes,
					       const int64_t *strides, int32_t dtype,
					       int32_t device_type, int32_t device_index,
					       AtenTensorHandle *ret);
AOTITorchError aoti_torch_create_tensor_from_blob(void *data, int64_t ndim, const int64_t *sizes,
						  const int64_t *strides, int64_t offset,
						  int32_t dtype, int32_t device_type,
						  int32_t device_index, AtenTensorHandle *ret);
AOTITorchError aoti_torch_create_tensor_from_blob_v2(void *data, int64_t ndim, const int64_t *sizes,
						     const int64_t *strides, int64_t offset,
						     int32_t dtype, int32_t device_type,
						     int32_t device_index, AtenTensorHandle *ret,
						     int32_t layout, const uint8_t *opaque_metadata,
						     int64_t opaque_metadata_size);
AOTITorchError aoti_torch__alloc_from_pool(AtenTensorHandle t, int64_t offset_bytes, int32_t dtype,
					   int64_t ndim, const int64_t *sizes,
					   const int64_t *strides, AtenTensorHandle *ret);
AOTITorchError aoti_torch__reinterpret_tensor(AtenTensorHandle t, int64_t ndim,
					      const int64_t *sizes, const int64_t *strides,
					      int64_t offset, AtenTensorHandle *ret);
AOTITorchError aoti_torch_as_strided(AtenTensorHandle t, const int64_t *sizes,
				     const int64_t *strides, AtenTensorHandle *ret);
AOTITorchError aoti_torch_view_dtype(AtenTensorHandle t, int32_t dtype, AtenTensorHandle *ret);
AOTITorchError aoti_torch_view_as_real(AtenTensorHandle t, AtenTensorHandle *ret);
AOTITorchError aoti_torch_clone(AtenTensorHandle t, AtenTensorHandle *ret);
AOTITorchError aoti_torch_clone_preserve_strides(AtenTensorHandle t, AtenTensorHandle *ret);

/* ---- contents ---- */
AOTITorchError aoti_torch_copy_(AtenTensorHandle self, AtenTensorHandle src, int32_t non_blocking);
AOTITorchError aoti_torch_zero_(AtenTensorHandle self);
AOTITorchError aoti_torch_aten_fill__Scalar(AtenTensorHandle self, double value);
AOTITorchError aoti_torch_aten_full(const int64_t *size, int64_t size_len_, double fill_value,
				    int32_t *dtype, int32_t *layout, int32_t *device,
				    int32_t device_index_, int32_t *pin_memory,
				    AtenTensorHandle *ret0);
AOTITorchError aoti_torch_cpu__efficientzerotensor(const int64_t *size, int64_t size_len_,
						   int32_t *dtype, int32_t *layout, int32_t *device,
						   int32_t device_index_, int32_t *pin_memory,
						   AtenTensorHandle *ret0);
AOTITorchError aoti_torch_aten_narrow(AtenTensorHandle self, int64_t dim, int64_t start,
				      int64_t length, AtenTensorHandle *ret0);
AOTITorchError aoti_torch_aten_new_empty(AtenTensorHandle self, const int64_t *size,
					 int64_t size_len_, int32_t *dtype, int32_t *layout,
					 int32_t *device, int32_t device_index_,
					 int32_t *pin_memory, AtenTensorHandle *ret0);
AOTITorchError aoti_torch_aten_new_zeros(AtenTensorHandle self, const int64_t *size,
					 int64_t size_len_, int32_t *dtype, int32_t *layout,
					 int32_t *device, int32_t device_index_,
					 int32_t *pin_memory, AtenTensorHandle *ret0);

/* ---- older names of operators ---- */
AOTITorchError aoti_torch_addmm_out(AtenTensorHandle out, AtenTensorHandle self,
				    AtenTensorHandle mat1, AtenTensorHandle mat2, float beta,
				    float alpha);
AOTITorchError aoti_torch_bmm_out(AtenTensorHandle out, AtenTensorHandle self,
				  AtenTensorHandle mat2);
AOTITorchError aoti_torch_mm_out(AtenTensorHandle out, AtenTensorHandle self,
				 AtenTensorHandle mat2);
AOTITorchError aoti_torch__mm_plus_mm_out(AtenTensorHandle out, AtenTensorHandle a,
					  AtenTensorHandle b, AtenTensorHandle c,
					  AtenTensorHandle d);
AOTITorchError aoti_torch_convolution(AtenTensorHandle input, AtenTensorHandle weight,
				      AtenTensorHandle bias, const int64_t *stride,
				      int64_t n_stride, const int64_t *padding, int64_t n_padding,
				      const int64_t *dilation, int64_t n_dilation, int transposed,
				      const int64_t *output_padding, int64_t n_output_padding,
				      int64_t groups, AtenTensorHandle *ret);

/* ---- operators by name ---- */
AOTITorchError aoti_torch_proxy_executor_call_function(void *executor, int32_t extern_node_index,
						       int32_t num_ints, int64_t *flatten_int_args,
						       int32_t num_tensors,
						       AtenTensorHandle *flatten_tensor_args);

/* ---- state, messages, debugging, profiler records ---- */
bool aoti_torch_grad_mode_is_enabled(void);
void aoti_torch_grad_mode_set_enabled(bool enabled);
void aoti_torch_check(bool cond, const char *func, const char *file, uint32_t line,
		      const char *msg);
void aoti_torch_warn(const char *func, const char *file, uint32_t line, const char *msg);
const char *torch_exception_get_what_without_backtrace(void);
AOTITorchError aoti_torch_check_inf_and_nan(const char *tensor_name, AtenTensorHandle tensor);
void aoti_torch_print_tensor_handle(AtenTensorHandle self, const char *msg);
AOTITorchError aoti_record_function_start(const char *name, void *kwargs, const pb_ivalue *inputs,
					  uint64_t n_inputs, void **guard);
AOTITorchError aoti_record_function_end(void *guard);
AOTITorchError aoti_torch_int64_to_ivalue(int64_t val, pb_ivalue *ret);
AOTITorchError aoti_torch_strlist_to_ivalue(const char **val, int64_t len, pb_ivalue *ret);
AOTITorchError aoti_torch_str_to_ivalue(const char *val, pb_ivalue *ret);
AOTITorchError aoti_torch_tensor_to_ivalue(AtenTensorHandle val, pb_ivalue *ret);
AOTITorchError aoti_torch_delete_c10_value_object(pb_ivalue handle);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif
