'use strict';
// Packages of npm against a running server: clients.js URL KEY_ID KEY CHECK

const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const util = require('util');

const [endpoint, keyId, key, wanted] = process.argv.slice(2);
const sha1 = (data) => crypto.createHash('sha1').update(data).digest('hex');

async function backblazeB2() {
    const B2 = require('backblaze-b2');
    const b2 = new B2({ applicationKeyId: keyId, applicationKey: key });
    await b2.authorize({ axiosOverride: { url: `${endpoint}/b2api/v2/b2_authorize_account` } });
    const { data: bucket } =
        await b2.createBucket({ bucketName: 'npm-backblaze-b2', bucketType: 'allPrivate' });
    const { bucketId } = bucket;
    const { data: pair } = await b2.getUploadUrl({ bucketId });
    const content = Buffer.from('content of a file');
    const { data: file } = await b2.uploadFile({
        uploadUrl: pair.uploadUrl, uploadAuthToken: pair.authorizationToken,
        fileName: 'dir/na me+%\u00e9.txt', data: content, info: { colour: 'blue' },
    });
    assert.strictEqual(file.contentSha1, sha1(content));
    const { data: info } = await b2.getFileInfo({ fileId: file.fileId });
    assert.strictEqual(info.fileInfo.colour, 'blue');
    const { data: down } = await b2.downloadFileByName({
        bucketName: 'npm-backblaze-b2', fileName: 'dir/na me+%\u00e9.txt',
        responseType: 'arraybuffer',
    });
    assert.ok(content.equals(Buffer.from(down)));

    const { data: large } = await b2.startLargeFile({ bucketId, fileName: 'large.bin' });
    const parts = [crypto.randomBytes(1_000_000), crypto.randomBytes(300_000)];
    for (const [at, data] of parts.entries()) {
        const { data: url } = await b2.getUploadPartUrl({ fileId: large.fileId });
        await b2.uploadPart({
            partNumber: at + 1, uploadUrl: url.uploadUrl,
            uploadAuthToken: url.authorizationToken, data,
        });
    }
    const { data: listed } = await b2.listParts({ fileId: large.fileId });
    assert.deepStrictEqual(listed.parts.map((part) => part.contentSha1), parts.map(sha1));
    const { data: finished } =
        await b2.finishLargeFile({ fileId: large.fileId, partSha1Array: parts.map(sha1) });
    assert.strictEqual(finished.contentLength, 1_300_000);
    const { data: whole } =
        await b2.downloadFileById({ fileId: large.fileId, responseType: 'arraybuffer' });
    assert.ok(Buffer.concat(parts).equals(Buffer.from(whole)));
    const { data: begun } = await b2.startLargeFile({ bucketId, fileName: 'given up' });
    await b2.cancelLargeFile({ fileId: begun.fileId });

    await b2.hideFile({ bucketId, fileName: 'large.bin' });
    const { data: names } = await b2.listFileNames({ bucketId, maxFileCount: 100 });
    assert.deepStrictEqual(names.files.map((one) => one.fileName), ['dir/na me+%\u00e9.txt']);
    const { data: versions } = await b2.listFileVersions({ bucketId, maxFileCount: 100 });
    assert.strictEqual(versions.files.length, 3);
    for (const version of versions.files) {
        await b2.deleteFileVersion({ fileId: version.fileId, fileName: version.fileName });
    }
    const { data: made } = await b2.createKey({
        capabilities: ['readFiles'], keyName: 'npm-key', bucketId,
    });
    await b2.deleteKey({ applicationKeyId: made.applicationKeyId });
    await b2.deleteBucket({ bucketId });
}

async function b2CloudStorage() {
    const B2 = require('b2-cloud-storage');
    const b2 = new B2({
        auth: { accountId: keyId, applicationKey: key }, maxSmallFileSize: 100_000_000,
    });
    // Its option for the address is not used by `authorize`.
    const request = b2.request.bind(b2);
    b2.request = (data, callback) => request(
        data.url === 'b2_authorize_account' ? { ...data, apiUrl: endpoint } : data, callback);
    const call = (name, ...rest) => util.promisify(b2[name].bind(b2))(...rest);
    await call('authorize');
    const bucket =
        await call('createBucket', { bucketName: 'npm-b2-cloud', bucketType: 'allPrivate' });
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kiln-npm-'));
    try {
        const small = path.join(folder, 'small');
        fs.writeFileSync(small, 'small content');
        const up = (file, more) => call('uploadFile', file, {
            bucketId: bucket.bucketId, contentType: 'b2/x-auto', ...more,
        });
        const first = await up(small, { fileName: 'small.txt' });
        assert.strictEqual(first.contentSha1, sha1('small content'));
        // Above its limit for single uploads the file goes up in parts, several at once.
        const large = path.join(folder, 'large');
        const content = crypto.randomBytes(101_000_000);
        fs.writeFileSync(large, content);
        const second = await up(large, { fileName: 'large.bin', partSize: 10_000_000 });
        assert.strictEqual(second.contentLength, content.length);
        const info = await call('getFileInfo', second.fileId);
        assert.strictEqual(info.fileInfo.large_file_sha1, sha1(content));
        const copy = await call('copyFile', {
            sourceFileId: first.fileId, fileName: 'copy.txt', size: 13,
        });
        assert.strictEqual(copy.contentSha1, sha1('small content'));
        const names = await call('listFileNames', { bucketId: bucket.bucketId });
        assert.deepStrictEqual(
            names.files.map((one) => one.fileName), ['copy.txt', 'large.bin', 'small.txt']);
        const shared = await call('getDownloadAuthorization', {
            bucketId: bucket.bucketId, fileNamePrefix: 'small', validDurationInSeconds: 60,
        });
        assert.ok(shared.authorizationToken);
        await call('hideFile', { bucketId: bucket.bucketId, fileName: 'copy.txt' });
        const versions = await call('listFileVersions', { bucketId: bucket.bucketId });
        for (const version of versions.files) {
            await call('deleteFileVersion', { fileId: version.fileId, fileName: version.fileName });
        }
        await call('deleteBucket', { bucketId: bucket.bucketId });
    } finally {
        fs.rmSync(folder, { recursive: true });
    }
}

// Remotes and streams, at the admin listener, with every field that the package knows.
async function influxdb() {
    const { InfluxDB, HttpError } = require('@influxdata/influxdb-client');
    const { HealthAPI, OrgsAPI, PingAPI, RemotesAPI, ReplicationsAPI } =
        require('@influxdata/influxdb-client-apis');
    const server = new InfluxDB({ url: endpoint, token: `${keyId}:${key}` });
    const remotes = new RemotesAPI(server);
    const replications = new ReplicationsAPI(server);
    assert.strictEqual((await new HealthAPI(server).getHealth()).status, 'pass');
    await new PingAPI(server).getPing();
    const { orgs } = await new OrgsAPI(server).getOrgs({ org: keyId });
    const orgID = orgs[0].id;
    assert.strictEqual(orgID, keyId.padStart(16, '0'));
    const bucketId = process.env.KILN_TEST_BUCKET;
    const subset = (whole, part) => {
        for (const [name, value] of Object.entries(part)) {
            assert.deepStrictEqual(whole[name], value, name);
        }
    };

    assert.deepStrictEqual(await remotes.getRemoteConnections({ orgID }), { remotes: [] });
    const token = 'K000qW3rTy-uI0p+aS/dF';
    const wanted = {
        name: 'npm remote', description: 'made by npm', orgID, remoteURL: 'http://127.0.0.1:9',
        remoteOrgID: '0c0c57dd86471000', allowInsecureTLS: true,
    };
    const remote = await remotes.postRemoteConnection(
        { body: { ...wanted, remoteAPIToken: `0123456789ab:${token}` } });
    subset(remote, wanted);
    assert.match(remote.id, /^[0-9a-f]{16}$/);
    assert.ok(!JSON.stringify(remote).includes(token));
    const remoteID = remote.id;
    assert.deepStrictEqual(
        (await remotes.getRemoteConnections({ orgID, name: wanted.name })).remotes, [remote]);
    assert.deepStrictEqual(
        (await remotes.getRemoteConnections({ orgID, remoteURL: 'http://127.0.0.1:1' })).remotes,
        []);
    assert.deepStrictEqual(
        await remotes.getRemoteConnectionByID({ remoteID }), remote);
    const change = {
        name: 'npm remote 2', description: 'changed', remoteURL: 'http://127.0.0.1:11',
        remoteOrgID: '0c0c57dd86472000', allowInsecureTLS: false,
    };
    const changed = await remotes.patchRemoteConnectionByID(
        { remoteID, body: { ...change, remoteAPIToken: 'other:token' } });
    subset(changed, { ...change, id: remoteID, orgID });

    const stream = {
        name: 'npm stream', description: 'made by npm', orgID, remoteID, localBucketID: bucketId,
        remoteBucketID: '4a48fe8875c6214145260818', maxQueueSizeBytes: 33554430,
        dropNonRetryableData: true, maxAgeSeconds: 86400,
    };
    const made = await replications.postReplication({ body: stream });
    subset(made, {
        ...stream, remoteBucketName: '', currentQueueSizeBytes: 0, remainingBytesToBeSynced: 0,
    });
    assert.ok(!('latestResponseCode' in made) && !('latestErrorMessage' in made));
    const replicationID = made.id;
    for (const filter of [{}, { name: stream.name }, { remoteID }, { localBucketID: bucketId }]) {
        assert.deepStrictEqual(
            (await replications.getReplications({ orgID, ...filter })).replications, [made]);
    }
    assert.deepStrictEqual(await replications.getReplicationByID({ replicationID }), made);
    const body = {
        name: 'npm stream 2', description: 'changed', remoteID, remoteBucketName: 'copies',
        maxQueueSizeBytes: 67108860, dropNonRetryableData: false, maxAgeSeconds: 0,
    };
    const patched = await replications.patchReplicationByID({ replicationID, body });
    subset(patched, { ...body, id: replicationID, orgID, localBucketID: bucketId, remoteBucketID: null });

    // Nobody listens there, which a try finds out.
    const refused = async (promise, status, code) => {
        const error = await promise.then(() => null, (error) => error);
        assert.ok(error instanceof HttpError, String(error));
        assert.strictEqual(error.statusCode, status);
        assert.strictEqual(error.json.code, code);
    };
    await refused(
        replications.postValidateReplicationByID({ replicationID }), 400, 'invalid');
    await refused(
        replications.postReplication({ body: { ...stream, name: 'x' }, validate: true }), 400,
        'invalid');
    await refused(
        replications.patchReplicationByID({ replicationID, body, validate: true }), 400, 'invalid');
    await refused(remotes.deleteRemoteConnectionByID({ remoteID }), 422, 'conflict');
    await refused(
        remotes.getRemoteConnectionByID({ remoteID: '0b000000000fffff' }), 404, 'not found');
    const nobody = new RemotesAPI(new InfluxDB({ url: endpoint, token: 'x:y' }));
    await refused(nobody.getRemoteConnections({ orgID }), 401, 'unauthorized');

    assert.strictEqual(
        await replications.deleteReplicationByID({ replicationID }), undefined);
    assert.strictEqual(await remotes.deleteRemoteConnectionByID({ remoteID }), undefined);
    assert.deepStrictEqual(await remotes.getRemoteConnections({ orgID }), { remotes: [] });
}

({ backblazeB2, b2CloudStorage, influxdb })[wanted]().then(
    () => process.exit(0),
    (error) => {
        const answer = error.response ? JSON.stringify(error.response.data) : '';
        console.error(error, answer);
        process.exit(1);
    });
