plugins {
    id("com.android.application") version "8.7.3"
    id("org.jetbrains.kotlin.android") version "2.2.0"
}

android {
    namespace = "org.sensorium.example"
    compileSdk = 35
    defaultConfig {
        applicationId = "org.sensorium.example"
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
        ndk { abiFilters += "arm64-v8a" }
    }
    kotlinOptions { jvmTarget = "17" }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    // Or a build of one's own: docs/export.md says how with required_operators.config.
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.29.0")
}
