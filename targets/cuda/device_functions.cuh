// What the kernels call; device_functions.py says what each function does. Forms and layouts: PTX ISA, mma for .b1.
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
#define int64_t long long
#define uint64_t unsigned long long
#define int8_t signed char
#define uint8_t unsigned char
#define BNN_DEVICE static __device__ __forceinline__
#define BNN_WHOLE_WARP 0xffffffffu
// What TVM calls the constants of CUDA's math_constants.h, which a bare NVRTC does not have.
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)

BNN_DEVICE void bnn_barrier() { __syncthreads(); }

#if __CUDA_ARCH__ >= 800

// Bytes to copy, bytes to read: what is not read is filled with zeros. Only copies of 16 bytes may pass by the L1 cache.
#define BNN_COPY_ASYNC(cache, bytes)                                                                             \
    asm volatile("cp.async." cache ".shared.global [%0], [%1], " #bytes ", %2;" ::"r"(                           \
                     (unsigned)__cvta_generic_to_shared(destination)),                                           \
                 "l"(__cvta_generic_to_global(source)), "r"(valid ? bytes : 0)                                   \
                 : "memory")

BNN_DEVICE void bnn_copy_async_1(void *destination, const void *source, int valid) { BNN_COPY_ASYNC("ca", 4); }
BNN_DEVICE void bnn_copy_async_2(void *destination, const void *source, int valid) { BNN_COPY_ASYNC("ca", 8); }
BNN_DEVICE void bnn_copy_async_4(void *destination, const void *source, int valid) { BNN_COPY_ASYNC("cg", 16); }
BNN_DEVICE void bnn_commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// The instruction takes a literal, which NVRTC does not see in the argument of an inline function; the rest is optimised away.
BNN_DEVICE void bnn_wait_for_copies(const int pending) {
    switch (pending) {
    case 1: asm volatile("cp.async.wait_group 1;" ::: "memory"); break;
    case 2: asm volatile("cp.async.wait_group 2;" ::: "memory"); break;
    case 3: asm volatile("cp.async.wait_group 3;" ::: "memory"); break;
    default: asm volatile("cp.async.wait_group 0;" ::: "memory"); // waits for all, which is right for any number
    }
}

#else

BNN_DEVICE void bnn_copy_async_1(void *destination, const void *source, int valid) {
    *(unsigned *)destination = valid ? *(const unsigned *)source : 0u;
}
BNN_DEVICE void bnn_copy_async_2(void *destination, const void *source, int valid) {
    *(uint2 *)destination = valid ? *(const uint2 *)source : make_uint2(0u, 0u);
}
BNN_DEVICE void bnn_copy_async_4(void *destination, const void *source, int valid) {
    *(uint4 *)destination = valid ? *(const uint4 *)source : make_uint4(0u, 0u, 0u, 0u);
}
BNN_DEVICE void bnn_commit_copies() {}
BNN_DEVICE void bnn_wait_for_copies(int) {}

#endif

#if __CUDA_ARCH__ >= 800

#define BNN_MMA(form)                                                                                            \
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32." form ".popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, " \
                 "{%8,%9}, {%0,%1,%2,%3};"                                                                       \
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

BNN_DEVICE void bnn_mma_xor(int *c, const unsigned *a, const unsigned *b) { BNN_MMA("xor"); }
BNN_DEVICE void bnn_mma_and(int *c, const unsigned *a, const unsigned *b) { BNN_MMA("and"); }

#elif __CUDA_ARCH__ >= 750

// sm_75 has tiles of 8 rows and 128 bits only: four of them are one of 16 rows and 256 bits, in the same registers.
BNN_DEVICE void bnn_mma_xor_8x8x128(int *c, unsigned a, unsigned b) {
    asm volatile("mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a), "r"(b));
}
BNN_DEVICE void bnn_mma_xor(int *c, const unsigned *a, const unsigned *b) {
    bnn_mma_xor_8x8x128(c, a[0], b[0]);
    bnn_mma_xor_8x8x128(c + 2, a[1], b[0]);
    bnn_mma_xor_8x8x128(c, a[2], b[1]);
    bnn_mma_xor_8x8x128(c + 2, a[3], b[1]);
}

#endif

BNN_DEVICE void bnn_or_across_4(unsigned *value) {
    *value |= __shfl_xor_sync(BNN_WHOLE_WARP, *value, 1);
    *value |= __shfl_xor_sync(BNN_WHOLE_WARP, *value, 2);
}
BNN_DEVICE void bnn_add_across_4(int *value) {
    *value += __shfl_xor_sync(BNN_WHOLE_WARP, *value, 1);
    *value += __shfl_xor_sync(BNN_WHOLE_WARP, *value, 2);
}
BNN_DEVICE void bnn_add_across_32(int *value) {
    for (int step = 1; step < 32; step *= 2) {
        *value += __shfl_xor_sync(BNN_WHOLE_WARP, *value, step);
    }
}
BNN_DEVICE void bnn_ballot(unsigned *result, const unsigned *condition) {
    *result = __ballot_sync(BNN_WHOLE_WARP, *condition != 0u);
}
