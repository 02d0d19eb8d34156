/* A preloaded library that stands between a VMM with one vCPU and KVM, for direct.sh. It notes what
 * the process had cost when the guest ran its first instruction and when it wrote to port 0xf4, and
 * appends to $KVM_MARKS:
 *
 *   PROGRAM first NS last NS exits COUNT user COUNT
 *
 * NS are nanoseconds of processor time of all threads, in and out of the guest; in a lab with an
 * instruction clock they are instructions. The exits are KVM's own count and those that reached the
 * program. With $KVM_MARKS_DETAIL a line for each port and page that the guest touched follows. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { DEBUG_EXIT = 0xf4, MOST_PLACES = 4096 };

static struct {
    int (*ioctl)(int fd, unsigned long request, ...);
    const struct kvm_run *run;
    uint64_t first, user;
    struct place {
        uint64_t address;
        uint32_t reason, count;
    } place[MOST_PLACES];
} marks;

static uint64_t cpu_time(void)
{
    struct timespec t = { 0, 0 };
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void count(const struct kvm_run *run)
{
    uint64_t address = 0;
    uint32_t reason = run->exit_reason;
    if (reason == KVM_EXIT_IO)
        address = run->io.port;
    else if (reason == KVM_EXIT_MMIO)
        address = run->mmio.phys_addr & ~UINT64_C(0xfff);
    size_t at = (address ^ address >> 12 ^ (uint64_t)reason << 7) % MOST_PLACES;
    for (size_t i = 0; i < MOST_PLACES; i++, at = (at + 1) % MOST_PLACES) {
        struct place *p = &marks.place[at];
        if (p->count && (p->address != address || p->reason != reason))
            continue;
        p->address = address;
        p->reason = reason;
        p->count++;
        return;
    }
}

/* KVM's count of all exits of the vCPU, Linux Documentation/virt/kvm/api.rst 4.134. */
static uint64_t all_exits(int vcpu)
{
    struct kvm_stats_header head;
    uint64_t found = 0;
    int fd = marks.ioctl(vcpu, KVM_GET_STATS_FD, NULL);
    if (fd < 0 || pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head)
        return 0;
    size_t size = sizeof(struct kvm_stats_desc) + head.name_size;
    struct kvm_stats_desc *desc = calloc(1, size);
    for (uint32_t i = 0; desc && i < head.num_desc; i++)
        if (pread(fd, desc, size, (off_t)(head.desc_offset + i * size)) == (ssize_t)size &&
            !strcmp(desc->name, "exits") &&
            pread(fd, &found, sizeof found, (off_t)(head.data_offset + desc->offset)) < 0)
            found = 0;
    free(desc);
    close(fd);
    return found;
}

static void report(int vcpu)
{
    uint64_t last = cpu_time();
    const char *path = getenv("KVM_MARKS");
    FILE *out = path ? fopen(path, "a") : NULL;
    if (!out)
        return;
    fprintf(out, "%s first %llu last %llu exits %llu user %llu\n", program_invocation_short_name,
            (unsigned long long)marks.first, (unsigned long long)last,
            (unsigned long long)all_exits(vcpu), (unsigned long long)marks.user);
    for (size_t i = 0; getenv("KVM_MARKS_DETAIL") && i < MOST_PLACES; i++)
        if (marks.place[i].count)
            fprintf(out, "  reason %u at %llx: %u\n", marks.place[i].reason,
                    (unsigned long long)marks.place[i].address, marks.place[i].count);
    fclose(out);
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (!marks.ioctl)
        marks.ioctl = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    if (request != KVM_RUN)
        return marks.ioctl(fd, request, argument);
    if (!marks.run) {
        void *run = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        if (run == MAP_FAILED)
            return marks.ioctl(fd, request, argument);
        marks.run = run;
        marks.first = cpu_time();
    }
    int result = marks.ioctl(fd, request, argument);
    int error = errno;
    marks.user++;
    if (!result)
        count(marks.run);
    if (!result && marks.run->exit_reason == KVM_EXIT_IO && marks.run->io.port == DEBUG_EXIT &&
        marks.run->io.direction == KVM_EXIT_IO_OUT)
        report(fd);
    errno = error;
    return result;
}
