/* CRC-32C (Castagnoli), as VHDX and iSCSI have it (RFC 3720, B.4). */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Starts with ~0u; the sum is the complement of what comes at the end. */
uint32_t crc32c_add(uint32_t crc, const uint8_t *bytes, size_t length);
