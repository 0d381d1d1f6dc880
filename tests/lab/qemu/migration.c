/*
 * SPDX-License-Identifier: MIT
 *
 * Host Managed Live Migration for the NVMe controllers of QEMU 7.2: Migration Send and Migration Receive.
 *
 * MIT, as the rest of nvmelm. What is built with it is QEMU, and under QEMU's licence, the GNU General Public License.
 *
 * Written from the NVM Express Base Specification 2.1; sections in square brackets are its. ctrl.c includes this file,
 * as the functions it needs are static there: build.py puts the lines that call it into ctrl.c.
 *
 * What it implements, with hmlms=on on a physical function (the Migration Management Controller):
 *   Migration Send 41h: Suspend, Resume, Set Controller State; Migration Receive 42h: Get Controller State
 *   Supported Controller State Formats [5.1.13.2.21]: version 0, no vendor formats
 *   a command of its own, C1h, by which a test orders one of these to fail
 * What it does not: Track Send, Track Receive, Controller Data Queues; they end with Invalid Opcode, and Identify
 * Controller says so (TRATTR 0, bytes 570 to 587 zero).
 *
 * Where the specification leaves a choice:
 *   - the state has no place for shadow doorbells, so with hmlms=on no controller has Doorbell Buffer Config;
 *   - a controller that is Offline cannot be suspended (Invalid Controller Identifier);
 *   - queues can be set only in a controller that is enabled: the sizes of queue entries and pages are in CC; and with
 *     MSI-X enabled, where they interrupt by a vector;
 *   - a transfer may repeat parts of a structure, but leave none out.
 */

#define NVME_ADM_CMD_MIGRATION_SEND    0x41
#define NVME_ADM_CMD_MIGRATION_RECEIVE 0x42
#define NVME_ADM_CMD_ORDER_FAILURE     0xc1
#define NVME_OACS_HMLMS                (1 << 11)
#define NVME_NOT_ENOUGH_RESOURCES      0x0138
#define NVME_CTRL_NOT_SUSPENDED        0x013a
#define NVME_INVALID_CDQ               0x0137

enum { MIG_SUSPEND = 0, MIG_RESUME = 1, MIG_SET_STATE = 2 }; /* SEL of Migration Send */
enum { MIG_GET_STATE = 0 };                                  /* SEL of Migration Receive */
enum { MIG_FIRST = 1, MIG_LAST = 2 };                        /* bits of SEQIND; both: the only one */

#define MIG_VERSION_INDEX 1           /* CSVI: of the one version there is, which is version 0 */
#define MIG_STATE_LIMIT   (1024 * 1024)

/* Controller State [Figure 358], NVMe Controller State version 0 [359], and its queues [360, 361] */
typedef struct QEMU_PACKED MigHeader {
    uint16_t ver;
    uint8_t  csattr;     /* bit 0: suspended throughout */
    uint8_t  rsvd3[13];
    uint64_t nvmecss[2]; /* dwords, 128 bits */
    uint64_t vss[2];
} MigHeader;

typedef struct QEMU_PACKED MigQueues {
    uint16_t ver;
    uint16_t niosq;
    uint16_t niocq;
    uint16_t rsvd6;
} MigQueues;

typedef struct QEMU_PACKED MigSq {
    uint64_t prp1;
    uint16_t qsize;      /* 0's based */
    uint16_t qid;
    uint16_t cqid;
    uint16_t attributes; /* bit 0: contiguous; 2:1 priority, which this controller does not use */
    uint16_t head;
    uint16_t tail;
    uint32_t rsvd20;
} MigSq;

typedef struct QEMU_PACKED MigCq {
    uint64_t prp1;
    uint16_t qsize;
    uint16_t qid;
    uint16_t head;
    uint16_t tail;
    uint16_t attributes; /* bit 0: contiguous; 1 interrupts enabled; 2 phase tag that slot 0 has */
    uint16_t vector;
    uint32_t rsvd20;
} MigCq;

QEMU_BUILD_BUG_ON(sizeof(MigHeader) != 48);
QEMU_BUILD_BUG_ON(sizeof(MigQueues) != 8);
QEMU_BUILD_BUG_ON(sizeof(MigSq) != 24);
QEMU_BUILD_BUG_ON(sizeof(MigCq) != 24);

enum { MIG_PC = 1 << 0, MIG_IEN = 1 << 1, MIG_S0PT = 1 << 2 };

static bool nvme_migration_is_manager(NvmeCtrl *n)
{
    return n->params.hmlms && !pci_is_vf(&n->parent_obj);
}

/*
 * ---- Identify and the effects log
 */

/* Identify Controller [Figure 312]. HMPRE is 0 in this controller; what tracks is not there, so its limits are 0. */
static void nvme_migration_init(NvmeCtrl *n)
{
    uint16_t oacs = le16_to_cpu(n->id_ctrl.oacs);

    if (n->params.hmlms) {
        oacs &= ~NVME_OACS_DBBUF;
    }
    if (nvme_migration_is_manager(n)) {
        oacs |= NVME_OACS_HMLMS;
    }
    n->id_ctrl.oacs = cpu_to_le16(oacs);
}

/* Commands Supported and Effects [Figure 210]: no effect on what another command would see, so CSUPP alone. */
static void nvme_migration_effects(NvmeCtrl *n, NvmeEffectsLog *log)
{
    if (n->params.hmlms) {
        log->acs[NVME_ADM_CMD_DBBUF_CONFIG] = 0;
    }
    if (nvme_migration_is_manager(n)) {
        log->acs[NVME_ADM_CMD_MIGRATION_SEND] = cpu_to_le32(NVME_CMD_EFF_CSUPP);
        log->acs[NVME_ADM_CMD_MIGRATION_RECEIVE] = cpu_to_le32(NVME_CMD_EFF_CSUPP);
    }
}

/* CNS 20h, Supported Controller State Formats [Figure 329]: NV 1, NUUID 0, and version 0 with the index 1. */
static uint16_t nvme_migration_formats(NvmeCtrl *n, NvmeRequest *req)
{
    uint8_t formats[NVME_IDENTIFY_DATA_SIZE] = { 1, 0, 0, 0 };

    if (!nvme_migration_is_manager(n)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    return nvme_c2h(n, formats, sizeof(formats), req);
}

/*
 * ---- Suspend and Resume [5.1.17.1.1]
 *
 * A held controller fetches nothing: nvme_process_sq() returns at once, and so does the reporting of asynchronous
 * events. Doorbells are written as ever, and stay until it is let go. Suspend ends when what was fetched has been
 * completed; that takes until the host has made room, if a completion queue is full.
 */

static bool nvme_migration_is_suspended(NvmeCtrl *n)
{
    return n->migration.held && !n->migration.waiting;
}

/* Return whether all that was fetched has been completed, but for Asynchronous Event Requests. */
static bool nvme_migration_is_idle(NvmeCtrl *n)
{
    unsigned int under_way = 0;
    NvmeRequest *req;
    int i;

    for (i = 0; i < n->params.max_ioqpairs + 1; i++) {
        if (n->sq[i]) {
            QTAILQ_FOREACH(req, &n->sq[i]->out_req_list, entry) {
                under_way++;
            }
        }
        if (n->cq[i] && !QTAILQ_EMPTY(&n->cq[i]->req_list)) {
            return false;
        }
    }
    return under_way == n->outstanding_aers;
}

/* End the primary's Suspend that waits for this controller, if there is one. */
static void nvme_migration_end_suspend(NvmeCtrl *n, uint16_t status)
{
    NvmeRequest *req = n->migration.waiting;

    if (req) {
        n->migration.waiting = NULL;
        req->status = status;
        nvme_enqueue_req_completion(nvme_cq(req), req);
    }
}

/* Called after completions were posted, which is the only way to become idle. */
static void nvme_migration_progress(NvmeCtrl *n)
{
    if (n->migration.waiting && nvme_migration_is_idle(n)) {
        nvme_migration_end_suspend(n, NVME_SUCCESS);
    }
}

static uint16_t nvme_migration_suspend(NvmeCtrl *n, NvmeRequest *req)
{
    uint32_t dw11 = le32_to_cpu(req->cmd.cdw11);
    uint8_t stype = dw11 >> 16;

    if (stype > 1) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (dw11 >> 31) { /* DUDMQ: delete a User Data Migration Queue, and there are none */
        return NVME_INVALID_CDQ | NVME_DNR;
    }
    if (!nvme_sctrl(n)->scs) {
        return NVME_INVALID_CTRL_ID | NVME_DNR;
    }
    if (stype == 0 || nvme_migration_is_suspended(n)) { /* a notice changes nothing; neither does doing it again */
        return NVME_SUCCESS;
    }
    if (n->migration.waiting) {
        return NVME_CMD_SEQ_ERROR | NVME_DNR;
    }
    n->migration.held = true;
    if (nvme_migration_is_idle(n)) {
        return NVME_SUCCESS;
    }
    n->migration.waiting = req;
    return NVME_NO_COMPLETE;
}

static void nvme_migration_discard(NvmeCtrl *n)
{
    if (n->migration.state) {
        g_byte_array_unref(n->migration.state);
        n->migration.state = NULL;
    }
}

/* Go on with what is in the queues, and say again that there are completions: an interrupt may have been lost. */
static void nvme_migration_let_go(NvmeCtrl *n)
{
    int i;

    n->migration.held = false;
    for (i = 0; i < n->params.max_ioqpairs + 1; i++) {
        if (n->sq[i]) {
            qemu_bh_schedule(n->sq[i]->bh);
        }
        if (n->cq[i] && n->cq[i]->head != n->cq[i]->tail) {
            nvme_irq_assert(n, n->cq[i]);
        }
    }
    nvme_process_aers(n);
}

static uint16_t nvme_migration_resume(NvmeCtrl *n)
{
    if (!nvme_migration_is_suspended(n)) {
        return NVME_CTRL_NOT_SUSPENDED | NVME_DNR;
    }
    if (n->migration.state) { /* begun and not committed */
        return NVME_CMD_SEQ_ERROR | NVME_DNR;
    }
    nvme_migration_let_go(n);
    return NVME_SUCCESS;
}

/*
 * A Controller Level Reset ends a suspension and a transfer; that of the primary does so for all of its secondaries
 * [5.1.17.1.1, 8.1.12]. Called before the queues are freed.
 */
static void nvme_migration_reset(NvmeCtrl *n)
{
    int i;

    if (nvme_migration_is_manager(n)) {
        for (i = 0; i < n->sec_ctrl_list.numcntl; i++) {
            NvmeCtrl *sn = nvme_subsys_ctrl(n->subsys, le16_to_cpu(n->sec_ctrl_list.sec[i].scid));

            if (sn) {
                sn->migration.waiting = NULL; /* its queue is about to go */
                sn->migration.held = false;
                nvme_migration_discard(sn);
            }
        }
    }
    nvme_migration_end_suspend(n, NVME_INTERNAL_DEV_ERROR);
    n->migration.held = false;
    nvme_migration_discard(n);
}

/*
 * ---- Get Controller State
 */

static GByteArray *nvme_migration_build(NvmeCtrl *n, bool queues)
{
    g_autoptr(GByteArray) sqs = g_byte_array_new();
    g_autoptr(GByteArray) cqs = g_byte_array_new();
    GByteArray *state = g_byte_array_new();
    MigHeader header = { .csattr = nvme_migration_is_suspended(n) };
    int i;

    if (!queues) { /* CSVI 0: without the NVMe state */
        return g_byte_array_append(state, (void *)&header, sizeof(header));
    }
    for (i = 1; i < n->params.max_ioqpairs + 1; i++) {
        NvmeSQueue *sq = n->sq[i];
        NvmeCQueue *cq = n->cq[i];

        if (sq) {
            MigSq entry = {
                .prp1 = cpu_to_le64(sq->dma_addr),
                .qsize = cpu_to_le16(sq->size - 1),
                .qid = cpu_to_le16(sq->sqid),
                .cqid = cpu_to_le16(sq->cqid),
                .attributes = cpu_to_le16(MIG_PC),
                .head = cpu_to_le16(sq->head),
                .tail = cpu_to_le16(sq->tail),
            };
            g_byte_array_append(sqs, (void *)&entry, sizeof(entry));
        }
        if (cq) {
            /* S0PT is what slot 0 has. cq->phase is what the next entry gets, which slot 0 has, unless it is next. */
            bool slot0 = cq->tail ? cq->phase : !cq->phase;
            MigCq entry = {
                .prp1 = cpu_to_le64(cq->dma_addr),
                .qsize = cpu_to_le16(cq->size - 1),
                .qid = cpu_to_le16(cq->cqid),
                .head = cpu_to_le16(cq->head),
                .tail = cpu_to_le16(cq->tail),
                .attributes = cpu_to_le16(MIG_PC | (cq->irq_enabled ? MIG_IEN : 0) | (slot0 ? MIG_S0PT : 0)),
                .vector = cpu_to_le16(cq->vector),
            };
            g_byte_array_append(cqs, (void *)&entry, sizeof(entry));
        }
    }
    MigQueues counts = {
        .niosq = cpu_to_le16(sqs->len / sizeof(MigSq)),
        .niocq = cpu_to_le16(cqs->len / sizeof(MigCq)),
    };
    header.nvmecss[0] = cpu_to_le64((sizeof(counts) + sqs->len + cqs->len) / 4);
    g_byte_array_append(state, (void *)&header, sizeof(header));
    g_byte_array_append(state, (void *)&counts, sizeof(counts));
    g_byte_array_append(state, sqs->data, sqs->len);
    return g_byte_array_append(state, cqs->data, cqs->len);
}

/* An offset beyond the end is an error; one at the end is not, nor is asking for more than there is. */
static uint16_t nvme_migration_get_state(NvmeCtrl *n, NvmeCtrl *target, NvmeRequest *req)
{
    uint8_t csvi = le32_to_cpu(req->cmd.cdw10) >> 16;
    uint8_t csuuidi = le32_to_cpu(req->cmd.cdw11) >> 16;
    uint64_t offset = le32_to_cpu(req->cmd.cdw12) | (uint64_t)le32_to_cpu(req->cmd.cdw13) << 32;
    uint64_t length = ((uint64_t)le32_to_cpu(req->cmd.cdw15) + 1) * 4;
    g_autoptr(GByteArray) state = nvme_migration_build(target, csvi);
    uint16_t status;

    if (csvi > MIG_VERSION_INDEX || csuuidi || offset % 4 || offset > state->len) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    status = nvme_check_mdts(n, length);
    if (status) {
        return status;
    }
    length = MIN(length, state->len - offset);
    req->cqe.result = cpu_to_le32(nvme_migration_is_suspended(target)); /* CSUP */
    return length ? nvme_c2h(n, state->data + offset, length, req) : NVME_SUCCESS;
}

/*
 * ---- Set Controller State
 */

static bool nvme_migration_has_queues(NvmeCtrl *n)
{
    int i;

    for (i = 1; i < n->params.max_ioqpairs + 1; i++) {
        if (n->sq[i] || n->cq[i]) {
            return true;
        }
    }
    return false;
}

static void nvme_migration_remove_queues(NvmeCtrl *n)
{
    int i;

    for (i = 1; i < n->params.max_ioqpairs + 1; i++) {
        if (n->sq[i]) {
            QTAILQ_REMOVE(&n->cq[n->sq[i]->cqid]->sq_list, n->sq[i], entry);
            nvme_free_sq(n->sq[i], n);
        }
    }
    for (i = 1; i < n->params.max_ioqpairs + 1; i++) {
        if (n->cq[i]) {
            nvme_free_cq(n->cq[i], n);
        }
    }
}

/* Create I/O Completion Queue does the checks of a create command; then the queue is put where it was. */
static uint16_t nvme_migration_make_cq(NvmeCtrl *n, const MigCq *entry)
{
    uint16_t attributes = le16_to_cpu(entry->attributes), qid = le16_to_cpu(entry->qid);
    uint16_t head = le16_to_cpu(entry->head), tail = le16_to_cpu(entry->tail);
    NvmeRequest req = {};
    NvmeCreateCq *create = (NvmeCreateCq *)&req.cmd;
    NvmeCQueue *cq;
    uint16_t status;

    create->prp1 = entry->prp1;
    create->cqid = entry->qid;
    create->qsize = entry->qsize;
    create->cq_flags = cpu_to_le16(attributes & (MIG_PC | MIG_IEN));
    create->irq_vector = entry->vector;
    status = nvme_create_cq(n, &req);
    if (status) {
        return status;
    }
    cq = n->cq[qid];
    if (head >= cq->size || tail >= cq->size) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    cq->head = head;
    cq->tail = tail;
    cq->phase = !!(attributes & MIG_S0PT);
    if (!tail) { /* the next entry is slot 0's, and differs from what it has */
        cq->phase = !cq->phase;
    }
    if (cq->irq_enabled && head != tail) {
        n->cq_pending++;
    }
    return NVME_SUCCESS;
}

static uint16_t nvme_migration_make_sq(NvmeCtrl *n, const MigSq *entry)
{
    uint16_t head = le16_to_cpu(entry->head), tail = le16_to_cpu(entry->tail);
    NvmeRequest req = {};
    NvmeCreateSq *create = (NvmeCreateSq *)&req.cmd;
    NvmeSQueue *sq;
    uint16_t status;

    create->prp1 = entry->prp1;
    create->sqid = entry->qid;
    create->qsize = entry->qsize;
    create->cqid = entry->cqid;
    create->sq_flags = entry->attributes;
    status = nvme_create_sq(n, &req);
    if (status) {
        return status;
    }
    sq = n->sq[le16_to_cpu(entry->qid)];
    if (head >= sq->size || tail >= sq->size) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    sq->head = head;
    sq->tail = tail;
    return NVME_SUCCESS;
}

/* Create the queues of a whole structure, all of them or none. */
static uint16_t nvme_migration_commit(NvmeCtrl *n, const GByteArray *state, bool csvi)
{
    const MigHeader *header = (const void *)state->data;
    const MigQueues *counts = (const void *)(state->data + sizeof(*header));
    const MigSq *sqs = (const void *)(state->data + sizeof(*header) + sizeof(*counts));
    uint64_t dwords;
    uint16_t status = NVME_SUCCESS;
    int i, niosq, niocq;

    if (state->len < sizeof(*header) || header->ver || header->nvmecss[1] || header->vss[0] || header->vss[1]) {
        return NVME_INVALID_FIELD | NVME_DNR; /* VSS: there are no vendor formats */
    }
    dwords = le64_to_cpu(header->nvmecss[0]);
    if (dwords != (state->len - sizeof(*header)) / 4 || (dwords && !csvi)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (!dwords) {
        return NVME_SUCCESS;
    }
    if (dwords < sizeof(*counts) / 4 || counts->ver || nvme_migration_has_queues(n)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    niosq = le16_to_cpu(counts->niosq);
    niocq = le16_to_cpu(counts->niocq);
    if (dwords != (sizeof(*counts) + (niosq + niocq) * sizeof(MigSq)) / 4) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (niosq + niocq && !(ldl_le_p(&n->bar.csts) & NVME_CSTS_READY)) {
        return NVME_INVALID_CTRL_ID | NVME_DNR;
    }
    for (i = 0; i < niocq && !status; i++) {
        status = nvme_migration_make_cq(n, (const MigCq *)(sqs + niosq) + i);
    }
    for (i = 0; i < niosq && !status; i++) {
        status = nvme_migration_make_sq(n, sqs + i);
    }
    if (status) {
        nvme_migration_remove_queues(n);
        return ((status & 0x7ff) == NVME_INVALID_QID ? NVME_NOT_ENOUGH_RESOURCES : NVME_INVALID_FIELD) | NVME_DNR;
    }
    return NVME_SUCCESS;
}

/* Put one part where it belongs. */
static uint16_t nvme_migration_receive(NvmeCtrl *n, NvmeCtrl *target, NvmeRequest *req)
{
    GByteArray *state = target->migration.state;
    uint64_t offset = le32_to_cpu(req->cmd.cdw12) | (uint64_t)le32_to_cpu(req->cmd.cdw13) << 32;
    uint64_t length = (uint64_t)le32_to_cpu(req->cmd.cdw15) * 4; /* NUMD, a plain count */
    uint16_t status;

    if (offset % 4 || offset > state->len) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (offset + length > MIG_STATE_LIMIT) {
        return NVME_NOT_ENOUGH_RESOURCES | NVME_DNR;
    }
    status = nvme_check_mdts(n, length);
    if (status || !length) {
        return status;
    }
    if (offset + length > state->len) {
        g_byte_array_set_size(state, offset + length);
    }
    return nvme_h2c(n, state->data + offset, length, req);
}

static uint16_t nvme_migration_set_state(NvmeCtrl *n, NvmeCtrl *target, NvmeRequest *req)
{
    uint8_t seqind = (le32_to_cpu(req->cmd.cdw10) >> 16) & 0x3;
    uint32_t dw11 = le32_to_cpu(req->cmd.cdw11);
    uint8_t csvi = dw11 >> 16, csuuidi = dw11 >> 24;
    uint16_t status;

    /* suspended, or enabled, or Offline */
    if (!target->migration.held && nvme_sctrl(target)->scs && !NVME_CC_EN(ldl_le_p(&target->bar.cc))) {
        return NVME_INVALID_CTRL_ID | NVME_DNR;
    }
    if (csvi != MIG_VERSION_INDEX || csuuidi || (!req->cmd.cdw15 && seqind != MIG_LAST)) {
        return NVME_INVALID_FIELD | NVME_DNR; /* both indexes 0, or unknown ones; nothing, and more to come */
    }
    if (seqind & MIG_FIRST) {
        nvme_migration_discard(target);
        target->migration.state = g_byte_array_new();
    } else if (!target->migration.state) {
        return NVME_CMD_SEQ_ERROR | NVME_DNR;
    }
    status = nvme_migration_receive(n, target, req);
    if (!status && seqind & MIG_LAST) {
        status = nvme_migration_commit(target, target->migration.state, csvi);
    }
    if (status || seqind & MIG_LAST) { /* committed, or to be sent again from the beginning */
        nvme_migration_discard(target);
    }
    if (!status && seqind & MIG_LAST && !target->migration.held) {
        nvme_migration_let_go(target);
    }
    return status;
}

/*
 * ---- Failures that a test orders: a vendor specific command of this device, C1h
 *
 * CDW10 7:0 the opcode that fails, 15:8 its SEL, 16: it is done first, and fails then; CDW11 how many such commands
 * pass before; CDW12 the status, SCT and SC as in a completion's bits 27:17, 0 for none at all: it never completes.
 * An order is for one command, and a later one replaces it. CDW10 0 takes it back.
 */

static uint16_t nvme_migration_order(NvmeCtrl *n, NvmeRequest *req)
{
    n->migration.order = le32_to_cpu(req->cmd.cdw10);
    n->migration.passing = le32_to_cpu(req->cmd.cdw11);
    n->migration.status = le32_to_cpu(req->cmd.cdw12);
    return NVME_SUCCESS;
}

/* Return whether a command is the one that was ordered to fail; the order is done with then. */
static bool nvme_migration_is_ordered(NvmeCtrl *n, NvmeRequest *req)
{
    uint32_t select = le32_to_cpu(req->cmd.cdw10) & 0xff;

    if (!n->migration.order || (n->migration.order & 0xffff) != (req->cmd.opcode | select << 8)) {
        return false;
    }
    if (n->migration.passing) {
        n->migration.passing--;
        return false;
    }
    n->migration.order &= 1 << 16;
    return true;
}

/*
 * ---- The commands
 */

/* Return whether a command is for this file to answer; else ctrl.c answers it as ever. */
static bool nvme_migration_has(NvmeCtrl *n, uint8_t opcode)
{
    bool ours = opcode == NVME_ADM_CMD_MIGRATION_SEND || opcode == NVME_ADM_CMD_MIGRATION_RECEIVE ||
                opcode == NVME_ADM_CMD_ORDER_FAILURE;

    return n->params.hmlms && (opcode == NVME_ADM_CMD_DBBUF_CONFIG || (ours && nvme_migration_is_manager(n)));
}

static uint16_t nvme_migration_do(NvmeCtrl *n, NvmeRequest *req)
{
    uint8_t select = le32_to_cpu(req->cmd.cdw10);
    uint16_t cntlid = le32_to_cpu(req->cmd.cdw11); /* in the same place in each of them */
    bool receive = req->cmd.opcode == NVME_ADM_CMD_MIGRATION_RECEIVE;
    NvmeCtrl *target = nvme_subsys_ctrl(n->subsys, cntlid);

    if (NVME_CMD_FLAGS_PSDT(req->cmd.flags) != NVME_PSDT_PRP || NVME_CMD_FLAGS_FUSE(req->cmd.flags) ||
        select > (receive ? MIG_GET_STATE : MIG_SET_STATE)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    /* A controller that manages is not one that migrates [8.1.12]. */
    if (!target || !pci_is_vf(&target->parent_obj) || !nvme_sctrl_for_cntlid(n, cntlid)) {
        return NVME_INVALID_CTRL_ID | NVME_DNR;
    }
    if (receive) {
        return nvme_migration_get_state(n, target, req);
    }
    switch (select) {
    case MIG_SUSPEND:
        return nvme_migration_suspend(target, req);
    case MIG_RESUME:
        return nvme_migration_resume(target);
    default:
        return nvme_migration_set_state(n, target, req);
    }
}

static uint16_t nvme_migration_cmd(NvmeCtrl *n, NvmeRequest *req)
{
    uint16_t status = NVME_SUCCESS;

    if (req->cmd.opcode == NVME_ADM_CMD_DBBUF_CONFIG) {
        return NVME_INVALID_OPCODE | NVME_DNR;
    }
    if (req->cmd.opcode == NVME_ADM_CMD_ORDER_FAILURE) {
        return nvme_migration_order(n, req);
    }
    if (!nvme_migration_is_ordered(n, req)) {
        return nvme_migration_do(n, req);
    }
    if (n->migration.order) {
        status = nvme_migration_do(n, req);
    }
    n->migration.order = 0;
    if (status == NVME_NO_COMPLETE) { /* it is under way, and will say by itself how it ended */
        return status;
    }
    return n->migration.status ? n->migration.status | NVME_DNR : NVME_NO_COMPLETE;
}
