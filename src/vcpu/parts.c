/* A vCPU's state as bytes: the parts of libkvm's table, then the MSRs. Used for the reset state,
 * for suspend and for snapshots. The vCPU is parked.
 *
 * Format: for each part its size (u32) and its bytes; then the number of MSRs (u32) and for each
 * its index (u32) and value (u64). A file from another host may lack parts: sizes must match. */
#include "base/error.h"
#include "vcpu/vcpu.h"

#include <string.h>

static void put(GByteArray *out, const void *bytes, size_t size)
{
    g_byte_array_append(out, bytes, (guint)size);
}

static bool take(const uint8_t **in, size_t *length, void *to, size_t size)
{
    if (*length < size)
        return false;
    memcpy(to, *in, size);
    *in += size;
    *length -= size;
    return true;
}

/* KVM_GET_MSRS stops at an MSR that the host lists but refuses: skip it, go on behind it. */
static void save_msrs(struct vcpu *vcpu, const struct kvm_msr_names *names, GByteArray *out)
{
    g_autofree struct kvm_msr_values *values = g_new0(struct kvm_msr_values, 1);
    guint count_at = out->len;
    uint32_t count = 0;
    put(out, &count, sizeof count);
    for (uint32_t next = 0; next < names->head.nmsrs;) {
        uint32_t n = names->head.nmsrs - next;
        values->head.nmsrs = n;
        for (uint32_t i = 0; i < n; i++)
            values->entry[i] = (struct kvm_msr_entry){ .index = names->index[next + i] };
        int done = kvm_vcpu_get_msrs(&vcpu->kvm, values);
        done = MAX(done, 0);
        for (int i = 0; i < done; i++) {
            uint32_t index = values->entry[i].index;
            uint64_t data = values->entry[i].data;
            put(out, &index, sizeof index);
            put(out, &data, sizeof data);
        }
        count += (uint32_t)done;
        next += (uint32_t)done + 1;
    }
    memcpy(out->data + count_at, &count, sizeof count);
}

bool parts_save(struct vcpu *vcpu, const struct kvm_msr_names *msrs, GByteArray *out,
                GError **error)
{
    g_autofree uint8_t *buffer = g_malloc0(kvm_part_max);
    for (size_t i = 0; i < kvm_part_count; i++) {
        const struct kvm_part *part = &kvm_parts[i];
        int result = kvm_vcpu_get_part(&vcpu->kvm, part, buffer);
        if (result < 0)
            return hv_fail(error, HV_HOST, "vCPU %u: KVM does not give its %s: %s", vcpu->id,
                           part->name, g_strerror(-result));
        uint32_t size = (uint32_t)part->size;
        put(out, &size, sizeof size);
        put(out, buffer, part->size);
    }
    save_msrs(vcpu, msrs, out);
    return true;
}

static bool load_msrs(struct vcpu *vcpu, const uint8_t **in, size_t *length)
{
    g_autofree struct kvm_msr_values *values = g_new0(struct kvm_msr_values, 1);
    uint32_t count;
    if (!take(in, length, &count, sizeof count) || count > KVM_MSR_ROOM)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t data;
        if (!take(in, length, &values->entry[i].index, sizeof(uint32_t)) ||
            !take(in, length, &data, sizeof data))
            return false;
        values->entry[i].data = data;
    }
    /* What this host refuses is left out, one by one, as on saving. */
    for (uint32_t next = 0; next < count;) {
        values->head.nmsrs = count - next;
        int done = kvm_vcpu_set_msrs(&vcpu->kvm, values);
        done = MAX(done, 0);
        uint32_t skip = (uint32_t)done + 1;
        next += skip;
        if (next < count)
            memmove(values->entry, values->entry + skip, (count - next) * sizeof values->entry[0]);
    }
    return true;
}

bool parts_load(struct vcpu *vcpu, const uint8_t **in, size_t *length, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc0(kvm_part_max);
    for (size_t i = 0; i < kvm_part_count; i++) {
        const struct kvm_part *part = &kvm_parts[i];
        uint32_t size;
        if (!take(in, length, &size, sizeof size) || size != part->size ||
            !take(in, length, buffer, size))
            return hv_fail(error, HV_FAILED, "vCPU %u: the saved %s do not fit this host", vcpu->id,
                           part->name);
        int result = kvm_vcpu_set_part(&vcpu->kvm, part, buffer);
        if (result < 0)
            return hv_fail(error, HV_FAILED, "vCPU %u: KVM does not take its %s: %s", vcpu->id,
                           part->name, g_strerror(-result));
    }
    if (!load_msrs(vcpu, in, length))
        return hv_fail(error, HV_FAILED, "vCPU %u: the saved MSRs are cut off", vcpu->id);
    return true;
}
